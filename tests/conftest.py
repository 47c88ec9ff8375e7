"""Shared fixtures: a tiny random T5, toy tasks, a trained toy checkpoint and its exported bundles."""

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
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one CPU for each worker, and for each process that it starts
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same arithmetic on every machine


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which only calls it with -n
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that runs each folder of tests/integration, and each other file, on one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.partition("::")[0])
            in_folder = file.parts[1] == "integration" and len(file.parts) > 3
            return str(file.parent if in_folder else file)

    return Scheduler(config, log)


def pytest_collection_finish() -> None:
    """Import Kedro, which closes log handlers on import, and freeze the garbage collector.

    accelerate starts a collection in each training run, which would otherwise take a second.
    """
    import kedro.framework.project  # noqa: F401

    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the longest function and the longest file of the library."""
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
def shared_traces(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Path]:
    """Return the folder in which all workers share the traces of graphs."""
    import traces

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "traces"
    with traces.reuse_traces(folder):
        yield folder


@pytest.fixture
def unshared_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace graphs without the shared traces, as outside of tests."""
    import traces

    from hyperformer.export import classifier, shared_base

    for module in (classifier, shared_base):
        monkeypatch.setattr(module, "trace_graph", traces.TRACE)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread of torch and onnxruntime: sums in a fixed order, and one CPU for each worker."""
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
    """Create and save a random T5 with dropout: hidden size 16, 2 encoder and 2 decoder layers."""
    import torch

    from hyperformer.backbones import t5, t5_tokenizers

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
    t5.create_backbone(t5_tokenizers.train_tokenizer(texts, 240), sizes).save(folder)
    return folder


@pytest.fixture(scope="session")
def backbone_settings(backbone_folder: Path) -> Any:
    from hyperformer.settings import BackboneSettings

    return BackboneSettings(path=str(backbone_folder), max_source_tokens=32, max_target_tokens=16)


@pytest.fixture(scope="session")
def method_settings() -> Any:
    return toys.method_settings("hyperformer_plus_plus")


@pytest.fixture(scope="session")
def tasks() -> Any:
    from hyperformer.settings import Tasks

    return Tasks(task_settings())


@pytest.fixture
def backbone(backbone_settings: Any) -> Any:
    """Load the tiny T5 in evaluation mode with an adapter at every site, fresh for each test."""
    from hyperformer import backbones

    loaded = backbones.load(backbone_settings)
    loaded.insert_adapters(loaded.sites(), "gelu_new")
    return loaded


@pytest.fixture
def make_model(backbone_settings: Any, method_settings: Any, tasks: Any) -> Callable[..., Any]:
    """Return a function that creates a toy model; `loud`: with large weights, so that tasks differ."""
    import torch

    from hyperformer.methods import group_tasks
    from hyperformer.model.multi_task import MultiTaskModel

    def make(loud: bool = False, label_smoothing: float = 0.0, method: str = "", **changes: Any) -> Any:
        torch.manual_seed(1)
        settings = toys.method_settings(method, **changes) if method else method_settings
        group = group_tasks(settings, list(tasks.root))[0]
        model = MultiTaskModel(backbone_settings, settings, tasks, label_smoothing, group)
        if loud:
            with torch.no_grad():
                for parameter in model.method.parameters():
                    parameter.normal_(std=0.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def toy_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the checked rows of the toy tasks; every split has several lengths."""
    from datasets import Dataset

    from hyperformer.data.storage import write_rows

    sentences, pairs = toy_sentences(), toy_pairs()

    def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
        splits = {"train": rows[: len(rows) // 2], "validation": rows[len(rows) // 2 :], "test": rows[::3]}
        return {name: Dataset.from_list(split_rows) for name, split_rows in splits.items()}

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
    """Return a function that trains the toy tasks: (settings, seed, folder of resume states, method)."""
    from hyperformer import training

    def run(settings: Any, seed: int, states: Path, method: Any = method_settings) -> Any:
        return training.train(toy_rows, toy_tokens, tasks, backbone_settings, method, settings, seed, states)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., Any]) -> Path:
    """Save a checkpoint after a few steps at a high learning rate, so that tasks answer differently."""
    folder = tmp_path_factory.mktemp("checkpoint")
    writer, _ = train(
        train_settings(steps=30, evaluate_every=30, learning_rate=0.03), 0, tmp_path_factory.mktemp("states")
    )
    writer(folder)
    return folder


@pytest.fixture(scope="session")
def export_settings() -> Any:
    from hyperformer.settings import ExportSettings

    return ExportSettings(opset=18, tolerance=1e-4)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, toy_rows: Path, export_settings: Any) -> Path:
    """Export the bundles of all toy tasks."""
    from hyperformer import evaluation
    from hyperformer.export.bundle import export
    from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel

    model = MultiTaskModel.from_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    folder = tmp_path_factory.mktemp("bundles")
    export(checkpoint, toy_rows, metrics, toys.make_baselines(model.tasks), export_settings, DEFAULT_EVALUATION)(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_bundles(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], toy_rows: Path, export_settings: Any
) -> Path:
    """Export the bundles of the toy tasks on a small random BERT; one task has text pairs."""
    from encoders import build_model, save_backbone

    from hyperformer import evaluation
    from hyperformer.export.bundle import export
    from hyperformer.model.multi_task import DEFAULT_EVALUATION

    model = build_model(save_backbone(tmp_path_factory.mktemp("bert"), "bert", texts))
    checkpoint, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("bundles")
    model.save_pretrained(checkpoint)
    metrics, _ = evaluation.evaluate_all(model.answer, model.tasks, toy_rows)
    export(checkpoint, toy_rows, metrics, toys.make_baselines(model.tasks), export_settings, DEFAULT_EVALUATION)(folder)
    return folder


@pytest.fixture(scope="session")
def shared_base(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, toy_rows: Path, export_settings: Any
) -> Path:
    """Export all toy tasks on a shared base."""
    folder = tmp_path_factory.mktemp("onnx_shared")
    toys.export_shared_base(checkpoint, toy_rows, export_settings, folder)
    return folder
