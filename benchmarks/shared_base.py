"""Eight tasks on a shared base, beside one graph a task: sizes, memory, speed, and batches of mixed tasks.

    python benchmarks/shared_base.py                     # t5-small's sizes, random weights, reduction factor 32
    python benchmarks/shared_base.py --sizes default     # those of the shipped backbone

Speed is that of onnxruntime's run of one batch, contenders in random turns, medians over processes. Mixed batches hold
rows of tasks drawn at random: one graph that holds all tasks' weights stacked and takes `task_ids`, beside a run a task
(routing) on the shared base. The answers are those of GLUE, STS-B's 26 numbers among them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from t5_contenders import SIZES

SHAPES = [(batch, length) for batch in (1, 8, 32) for length in (32, 128)]
SETTLE = 0.03  # seconds before each run: threads of the one before may still be spinning
LABELS = {
    "cola": ["unacceptable", "acceptable"],
    "sst2": ["negative", "positive"],
    "mrpc": ["different", "equivalent"],
    "qqp": ["distinct", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
}
HYPERNETWORK = {"reduction_factor": 32, "task_embedding_dim": 64, "projector": {"hidden_dim": 128, "output_dim": 64}}
ONE = "mnli"


def make(folder: Path, sizes: str) -> None:
    """Writes `onnx`, `onnx_shared` and `mixed.onnx`, by the project's own export."""
    import torch
    from datasets import Dataset
    from transformers import T5Config, T5ForConditionalGeneration

    from hyperformer.backbones import t5
    from hyperformer.config import BackboneSettings, ExportSettings, Methods, Tasks
    from hyperformer.data import write_rows
    from hyperformer.evaluation import evaluate_all
    from hyperformer.export.bundle import export, export_shared_base
    from hyperformer.model import SCORED, MultiTaskModel

    words = [word for labels in LABELS.values() for word in labels] + ["a", "b", *"0123456789."]
    texts = [" ".join(words), *(f"{a}.{b}" for a in range(6) for b in range(10))] * 3
    torch.manual_seed(0)
    config = T5Config(**SIZES[sizes], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    T5ForConditionalGeneration(config).save_pretrained(folder / "t5")
    t5.train_tokenizer(texts, 300).save_pretrained(folder / "t5")
    tasks: dict[str, Any] = {
        name: {
            "text": "{a}",
            "kind": "classification",
            "label_column": "y",
            "metrics": ["accuracy"],
            "labels": dict(enumerate(labels)),
        }
        for name, labels in LABELS.items()
    }
    tasks["stsb"] = {"text": "{a}", "kind": "regression", "label_column": "y", "metrics": ["pearson"]}
    tasks["stsb"] |= {"minimum": 0, "maximum": 5, "step": 0.2}
    backbone = BackboneSettings(path=str(folder / "t5"), max_source_tokens=128, max_target_tokens=16)
    method = Methods(hyperformer_plus_plus=HYPERNETWORK).named("hyperformer_plus_plus")
    model = MultiTaskModel(backbone, method, Tasks(tasks))
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.normal_(std=0.05)
    model.save_pretrained(folder / "checkpoint")
    rows = [{"a": f"{one} {other}", "y": number % 2} for number, (one, other) in enumerate(itertools.pairwise(words))]
    split = dict.fromkeys(("train", "validation", "test"), Dataset.from_list(rows))
    write_rows(dict.fromkeys(tasks, split))(folder / "rows")
    metrics, _ = evaluate_all(model.answer, model.tasks, folder / "rows")
    settings = ExportSettings(opset=18, tolerance=1e-3)
    for name, write in (("onnx", export), ("onnx_shared", export_shared_base)):
        (folder / name).mkdir()
        write(folder / "checkpoint", folder / "rows", metrics, settings, SCORED)(folder / name)
    write_mixed(model.eval(), folder / "mixed.onnx")


def write_mixed(model: Any, path: Path) -> None:
    """One graph with all tasks' weights stacked: `input_ids`, `attention_mask` [B, L], `task_ids` [B] → scores."""
    import onnx
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from hyperformer.backbones.adapters import ADAPTER_NORM_EPS
    from hyperformer.backbones.graph_parts import Adapter
    from hyperformer.backbones.heads import NEVER
    from hyperformer.export import graphs

    among = list(model.answers.values())
    modules = [model.bake(name).exportable(model.answers[name], "constrained", among).eval() for name in model.tasks]
    mixed: Any = modules[0]

    def stacked(name: str, beyond: float = 0.0) -> Tensor:
        parts = [module.get_buffer(name) for module in modules]
        most = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
        found = torch.full((len(parts), *most), beyond)
        for whole, part in zip(found, parts, strict=True):
            whole[tuple(slice(size) for size in part.shape)] = part
        return found

    class Rows(nn.Module):
        """An adapter of which each row takes its task's weights."""

        def __init__(self, name: str, activation: nn.Module) -> None:
            super().__init__()
            self.activation = activation
            for part in ("down", "down_bias", "up", "up_bias", "gain", "shift"):
                self.register_buffer(part, stacked(f"{name}.{part}"))

        def forward(self, x: Tensor) -> Tensor:
            ids = mixed.task_ids
            z = self.activation(x @ self.down[ids] + self.down_bias[ids].unsqueeze(1))
            z = z @ self.up[ids] + self.up_bias[ids].unsqueeze(1)
            z = F.layer_norm(z, x.shape[-1:], eps=ADAPTER_NORM_EPS)
            return x + z * self.gain[ids].unsqueeze(1) + self.shift[ids].unsqueeze(1)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            adapters = {n: m for n, m in mixed.named_modules() if isinstance(m, Adapter) and not m.empty}
            rows = {name: Rows(name, part.activation) for name, part in adapters.items()}
            fills = {"bias": NEVER, "apart": NEVER}
            own = ["first", "queries", "edges", "own", "apart", "paths"]
            own += [name for name, _ in mixed.named_buffers() if name.endswith(".bias") and name.startswith("decoder")]
            for name in own:
                self.register_buffer(name.replace(".", "_"), stacked(name, fills.get(name.rpartition(".")[2], 0.0)))
            for block in mixed.decoder:  # it is each row's own, and set in every call
                if "bias" in block._buffers:
                    del block.bias
            for name, part in rows.items():
                parent, _, last = name.rpartition(".")
                setattr(mixed.get_submodule(parent), last, part)
            self.base = mixed

        def forward(self, input_ids: Tensor, attention_mask: Tensor, task_ids: Tensor) -> Tensor:
            mixed.task_ids = task_ids
            encoded, padding = self.base.encoded(input_ids, attention_mask)
            hidden, queries = self.first[task_ids].squeeze(1), self.queries[task_ids].squeeze(1)
            for number, block in enumerate(self.base.decoder):
                if number:
                    block.bias = getattr(self, f"decoder_{number}_bias", self.decoder_1_bias)[task_ids].squeeze(1)
                hidden = block(hidden, queries if number == 0 else None, encoded, padding)
            hidden = self.base.decoder_norm(hidden) * self.base.scale
            steps = (hidden @ self.edges[task_ids] + self.apart[task_ids]).log_softmax(-1)
            return ((steps * self.own[task_ids]).sum(1).unsqueeze(1) @ self.paths[task_ids]).squeeze(1)

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    ids, mask = torch.ones((2, 2, 5), dtype=torch.long)
    with graphs.quiet():
        program = torch.onnx.export(
            Mixed().eval(),
            (ids, mask, torch.tensor([0, 1])),
            dynamo=True,
            opset_version=18,
            input_names=["input_ids", "attention_mask", "task_ids"],
            output_names=["scores"],
            dynamic_shapes=(axes, axes, {0: axes[0]}),
            verbose=False,
        )
    assert program is not None
    onnx.save_model(graphs.plain(program.model_proto), path)


def resident() -> float:
    """What this process has in memory, MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) / 1e3


def memory(folder: Path, threads: int) -> None:
    """Prints a JSON line: what the folder's tasks take in memory, each opened and asked once, MB."""
    from hyperformer.runtime import Bundle, load

    found = load(folder, threads=threads)
    for bundle in [found] if isinstance(found, Bundle) else found.values():
        bundle({"a": "a b"})
    print(json.dumps(resident()))


def speed(folder: Path, threads: int, seconds: float) -> None:
    """Prints a JSON line: shape → contender → median seconds of this process."""
    import onnxruntime

    from hyperformer.runtime import load

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    mixed = onnxruntime.InferenceSession(folder / "mixed.onnx", options, providers=["CPUExecutionProvider"])
    shared, baked = load(folder / "onnx_shared", threads=threads), load(folder / "onnx" / ONE, threads=threads)
    names = [*LABELS, "stsb"]
    draw = np.random.default_rng(0)

    def run(bundle: Any, ids: np.ndarray[Any, Any]) -> Any:
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return bundle._session.run(["scores"], given, bundle._options)[0]

    def routed(ids: np.ndarray[Any, Any], tasks: np.ndarray[Any, Any]) -> list[Any]:
        found: list[Any] = [None] * len(ids)
        for task in np.unique(tasks):
            places = np.flatnonzero(tasks == task)
            for place, scores in zip(places, run(shared[names[task]], ids[places]), strict=True):
                found[place] = scores
        return found

    def together(ids: np.ndarray[Any, Any], tasks: np.ndarray[Any, Any]) -> Any:
        return mixed.run(["scores"], {"input_ids": ids, "attention_mask": np.ones_like(ids), "task_ids": tasks})[0]

    contenders: dict[str, Callable[[Any, Any], Any]] = {
        "one task's graph": lambda ids, tasks: run(baked, ids),
        "shared base, one task": lambda ids, tasks: run(shared[ONE], ids),
        "shared base, mixed tasks routed": routed,
        "stacked graph, mixed tasks": together,
    }
    found = {}
    for batch, length in SHAPES:
        ids, tasks = draw.integers(100, 250, (batch, length)), draw.integers(0, len(names), batch)
        for one, other in zip(routed(ids, tasks), together(ids, tasks), strict=True):  # the same answers
            np.testing.assert_allclose(one, other[: len(one)], atol=2e-3)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        began = time.perf_counter()
        while time.perf_counter() - began < seconds or len(times["one task's graph"]) < 4:
            for name in draw.permutation(list(contenders)).tolist():
                time.sleep(SETTLE)
                start = time.perf_counter()
                contenders[name](ids, tasks)
                times[name].append(time.perf_counter() - start)
        found[f"{batch} × {length}"] = {name: statistics.median(values[1:]) for name, values in times.items()}  # noqa: RUF001
    print(json.dumps(found))


def asked(*words: object) -> Any:
    """What a process of this file prints."""
    command = [sys.executable, __file__, *map(str, words)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(SIZES), default="t5-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each shape and process, at least four rounds")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--speed", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if given.memory:
        memory(given.memory, given.threads)
        return
    if given.speed:
        speed(given.speed, given.threads, given.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, given.sizes)
        base = (folder / "onnx_shared" / "model.onnx").stat().st_size / 1e6
        added = {p.parent.name: p.stat().st_size / 1e6 for p in (folder / "onnx_shared").glob("*/*.onnx_adapter")}
        alone = (folder / "onnx" / ONE / "model.onnx").stat().st_size / 1e6
        print(f"{given.sizes}, {given.threads} threads, {given.processes} processes")
        each = ", ".join(f"{name} {mb:.2f} MB ({100 * mb / base:.2f} %)" for name, mb in sorted(added.items()))
        print(f"files: base {base:.1f} MB; a task adds {each}; its own graph has {alone:.1f} MB")
        places = {
            "one task's graph": f"onnx/{ONE}",
            "eight tasks on a shared base": "onnx_shared",
            "eight tasks' graphs": "onnx",
        }
        taken = {
            what: statistics.median(
                asked("--memory", folder / place, "--threads", given.threads) for _ in range(given.processes)
            )
            for what, place in places.items()
        }
        print(
            "\n".join(f"memory: {what} {mb:.0f} MB, {mb / taken[next(iter(taken))]:.2f}" for what, mb in taken.items())
        )
        runs = []
        for number in range(given.processes):
            runs.append(asked("--speed", folder, "--threads", given.threads, "--seconds", given.seconds))
            print(f"process {number + 1} of {given.processes} is done", file=sys.stderr)
        names = list(runs[0][next(iter(runs[0]))])
        print(f"\n| batch × tokens | {names[0]}, ms | {' | '.join(names[1:])} |\n|{' --- |' * (len(names) + 1)}")  # noqa: RUF001
        for shape in runs[0]:
            ours = statistics.median(run[shape][names[0]] for run in runs)
            ratios = [statistics.median(run[shape][n] / run[shape][names[0]] for run in runs) for n in names[1:]]
            print(f"| {shape} | {1000 * ours:.2f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()
