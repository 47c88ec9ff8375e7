"""What the tests of the torch rooms share: a tiny random T5, toy tasks, a trained toy checkpoint and its bundles."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toys
from toys import task_settings, toy_pairs, toy_sentences, train_settings

pytest_plugins = ["cpu_times", "suites"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a CPU, and so has what it starts
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same arithmetic on every machine


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which asks it with -n only
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send the tests that share fixtures to one worker: those of a folder of tests/integration, or of a file."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            shares = file.parts[1] == "integration" and len(file.parts) > 3
            return str(file.parent if shares else file)

    return Scheduler(config, log)


def pytest_collection_finish() -> None:
    """Import what closes log handlers when it is imported, and leave what is imported out of garbage collections.

    accelerate asks for a collection a training run, of a second each otherwise.
    """
    import kedro.framework.project  # noqa: F401

    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The longest function and the longest file of the library, for whoever reads the run."""
    sizes: dict[str, list[tuple[int, str]]] = {"function": [], "file": []}
    for file in sorted((Path(__file__).parents[1] / "src").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        sizes["file"].append((source.count("\n"), file.name))
        sizes["function"] += [
            (node.end_lineno - node.lineno + 1, f"{file.name}: {node.name}")  # type: ignore[operator]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef)
        ]
    longest = ", ".join(
        f"{kind} {name} ({lines} lines)" for kind, (lines, name) in zip(sizes, map(max, sizes.values()), strict=True)
    )
    terminalreporter.write_line(f"longest: {longest}")


@pytest.fixture(scope="session", autouse=True)
def traced(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Path]:
    """The folder in which the traces of graphs are shared by all workers."""
    import traces

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "traces"
    with traces.reused(folder):
        yield folder


@pytest.fixture
def traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace graphs as an export does outside of tests."""
    import traces

    from hyperformer.export import classifier, shared_base

    for module in (classifier, shared_base):
        monkeypatch.setattr(module, "traced", traces.TRACE)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread of torch and of onnxruntime: sums in one order, and a CPU for each worker."""
    import onnxruntime
    import torch

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = 1

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", Options)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    answers = [label for task in task_settings().values() for label in task.get("labels", {}).values()]
    return [row["sentence"] for row in toy_sentences()] + [f"{r['a']} {r['b']}" for r in toy_pairs()] + answers * 5


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A random T5 with dropout, made and saved by the project's own code: 16 wide, 2 + 2 layers."""
    import torch

    from hyperformer.backbones import t5

    torch.manual_seed(0)
    sizes = {
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.1,
    }
    folder = tmp_path_factory.mktemp("backbone")
    t5.new(t5.train_tokenizer(texts, 240), sizes).save(folder)
    return folder


@pytest.fixture(scope="session")
def backbone_settings(backbone_folder: Path) -> Any:
    from hyperformer.config import BackboneSettings

    return BackboneSettings(path=str(backbone_folder), max_source_tokens=32, max_target_tokens=16)


@pytest.fixture(scope="session")
def method_settings() -> Any:
    return toys.method_settings("hyperformer_plus_plus")


@pytest.fixture(scope="session")
def tasks() -> Any:
    from hyperformer.config import Tasks

    return Tasks(task_settings())


@pytest.fixture
def backbone(backbone_settings: Any) -> Any:
    """The tiny T5 in evaluation mode with a place at every site, fresh for each test."""
    from hyperformer import backbones

    found = backbones.load(backbone_settings)
    found.place(found.sites(), "gelu_new")
    return found


@pytest.fixture
def make_model(backbone_settings: Any, method_settings: Any, tasks: Any) -> Callable[..., Any]:
    """Makes a fresh model of the toy tasks; `loud` gives its adapters weights of size 1, so that tasks differ much."""
    import torch

    from hyperformer.model import MultiTaskModel

    def make(loud: bool = False, label_smoothing: float = 0.0, method: str = "", **changes: Any) -> Any:
        torch.manual_seed(1)
        settings = toys.method_settings(method, **changes) if method else method_settings
        model = MultiTaskModel(backbone_settings, settings, tasks, label_smoothing)
        if loud:
            with torch.no_grad():
                for parameter in model.method.parameters():
                    parameter.normal_(std=0.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def toy_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of checked rows of the toy tasks; every split holds several lengths."""
    from datasets import Dataset

    from hyperformer.data import write_rows

    sentences, pairs = toy_sentences(), toy_pairs()

    def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
        parts = {"train": rows[: len(rows) // 2], "validation": rows[len(rows) // 2 :], "test": rows[::3]}
        return {name: Dataset.from_list(part) for name, part in parts.items()}

    folder = tmp_path_factory.mktemp("rows")
    write_rows({"mood": split(sentences), "mood3": split(sentences[:40]), "likeness": split(pairs)})(folder)
    return folder


@pytest.fixture(scope="session")
def toy_tokens(tmp_path_factory: pytest.TempPathFactory, toy_rows: Path, tasks: Any, backbone_settings: Any) -> Path:
    from hyperformer.training import encode

    folder = tmp_path_factory.mktemp("tokens")
    encode(toy_rows, tasks, backbone_settings)(folder)
    return folder


@pytest.fixture(scope="session")
def train(
    toy_rows: Path, toy_tokens: Path, tasks: Any, backbone_settings: Any, method_settings: Any
) -> Callable[..., tuple[Callable[[Path], None], list[dict[str, float]]]]:
    """Trains the toy tasks: (settings, seed, folder of resume states, method) → what `training.train` returns."""
    from hyperformer import training

    def run(settings: Any, seed: int, states: Path, method: Any = method_settings) -> Any:
        return training.train(toy_rows, toy_tokens, tasks, backbone_settings, method, settings, seed, states)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., Any]) -> Path:
    """A checkpoint after a few steps at a high rate: its tasks answer differently from one another."""
    folder = tmp_path_factory.mktemp("checkpoint")
    writer, _ = train(
        train_settings(steps=30, evaluate_every=30, learning_rate=0.03), 0, tmp_path_factory.mktemp("states")
    )
    writer(folder)
    return folder


@pytest.fixture(scope="session")
def export_settings() -> Any:
    from hyperformer.config import ExportSettings

    return ExportSettings(opset=18, tolerance=1e-4)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, toy_rows: Path, export_settings: Any) -> Path:
    """The exported bundles of all toy tasks."""
    from hyperformer import evaluation
    from hyperformer.export.bundle import export
    from hyperformer.model import SCORED, MultiTaskModel

    model = MultiTaskModel.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    folder = tmp_path_factory.mktemp("bundles")
    export(checkpoint, toy_rows, metrics, export_settings, SCORED)(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_bundles(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], toy_rows: Path, export_settings: Any
) -> Path:
    """The exported bundles of the toy tasks on a small random BERT, one of them of two texts."""
    from encoders import a_folder, a_model

    from hyperformer import evaluation
    from hyperformer.export.bundle import export
    from hyperformer.model import SCORED

    model = a_model(a_folder(tmp_path_factory.mktemp("bert"), "bert", texts))
    checkpoint, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("bundles")
    model.save_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    export(checkpoint, toy_rows, metrics, export_settings, SCORED)(folder)
    return folder


@pytest.fixture(scope="session")
def shared_base(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, toy_rows: Path, export_settings: Any
) -> Path:
    """The exported base of all toy tasks, and what each has beside it."""
    folder = tmp_path_factory.mktemp("onnx_shared")
    toys.export_shared_base(checkpoint, toy_rows, export_settings, folder)
    return folder
