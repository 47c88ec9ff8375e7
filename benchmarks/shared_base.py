"""Eight tasks on a shared base compared with one graph per task: sizes, memory, speed, and batches of mixed tasks.

    python benchmarks/shared_base.py                     # t5-small's size, random weights, reduction factor 32
    python benchmarks/shared_base.py --sizes default     # the shipped backbone's size

Speed is the time of one batch in ONNX Runtime, as medians over processes; the variants are timed in random order.
Batches of mixed tasks contain rows of random tasks. They are processed either by one graph that stacks the weights of
all tasks and has the input `task_ids`, or by one run of the shared base for each task (routing). The tasks have the
answers of GLUE's tasks, including the 26 scores of STS-B.
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
from t5_peers import SIZES

SHAPES = [(batch, length) for batch in (1, 8, 32) for length in (32, 128)]
"""The number of rows and the number of tokens per row, for each batch."""
SETTLE = 0.03  # seconds to wait before each call, as threads of the previous call may still spin
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
SINGLE_TASK = "mnli"
"""The task that is measured alone."""
SINGLE = "one task's graph"
"""The variant that the other variants are compared with."""


def write_models(folder: Path, sizes: str) -> None:
    """Write the exports `onnx` and `onnx_shared`, and the stacked graph `mixed.onnx`."""
    import torch
    from datasets import Dataset
    from transformers import T5Config, T5ForConditionalGeneration

    from hyperformer.backbones import t5_tokenizers
    from hyperformer.data.storage import write_rows
    from hyperformer.evaluation import evaluate_all
    from hyperformer.export.bundle import export, export_shared_base
    from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel
    from hyperformer.settings import BackboneSettings, ExportSettings, Methods, Tasks

    word_list = [word for labels in LABELS.values() for word in labels] + ["a", "b", *"0123456789."]
    texts = [" ".join(word_list), *(f"{a}.{b}" for a in range(6) for b in range(10))] * 3
    torch.manual_seed(0)
    config = T5Config(**SIZES[sizes], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    T5ForConditionalGeneration(config).save_pretrained(folder / "t5")
    t5_tokenizers.train_tokenizer(texts, 300).save_pretrained(folder / "t5")
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
    method = Methods({"hyperformer_plus_plus": HYPERNETWORK}).get_method("hyperformer_plus_plus")
    model = MultiTaskModel(backbone, method, Tasks(tasks))
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.normal_(std=0.05)
    model.save_pretrained(folder / "checkpoint")
    pairs = itertools.pairwise(word_list)
    rows = [{"a": f"{word} {following}", "y": number % 2} for number, (word, following) in enumerate(pairs)]
    split = dict.fromkeys(("train", "validation", "test"), Dataset.from_list(rows))
    write_rows(dict.fromkeys(tasks, split))(folder / "rows")
    metrics, _ = evaluate_all(model.answer, model.tasks, folder / "rows")
    baselines = {name: {task: {"majority": {"mean": -100.0}} for task in tasks} for name in ("validation", "test")}
    settings = ExportSettings(opset=18, tolerance=1e-3)
    for name, write in (("onnx", export), ("onnx_shared", export_shared_base)):
        (folder / name).mkdir()
        write(folder / "checkpoint", folder / "rows", metrics, baselines, settings, DEFAULT_EVALUATION)(folder / name)
    write_mixed(model.eval(), folder / "mixed.onnx")


def write_mixed(model: Any, path: Path) -> None:  # noqa: C901 - its modules are local, as torch is imported here
    """Write one graph with the stacked weights of all tasks.

    Its inputs are `input_ids` and `attention_mask` [B, L] and `task_ids` [B], its output is `scores`.
    """
    import onnx
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from hyperformer.backbones.adapters import ADAPTER_NORM_EPS
    from hyperformer.backbones.graph_parts import Adapter
    from hyperformer.backbones.heads import MASKED_LOGIT
    from hyperformer.export import graphs

    all_answers = list(model.answers.values())
    modules = [
        model.bake(name).build_export_module(model.answers[name], "constrained", all_answers).eval()
        for name in model.tasks
    ]
    mixed: Any = modules[0]

    def stack(name: str, fill: float = 0.0) -> Tensor:
        buffers = [module.get_buffer(name) for module in modules]
        shape = [max(sizes) for sizes in zip(*(buffer.shape for buffer in buffers), strict=True)]
        stacked = torch.full((len(buffers), *shape), fill)
        for padded, buffer in zip(stacked, buffers, strict=True):
            padded[tuple(slice(size) for size in buffer.shape)] = buffer
        return stacked

    class RowAdapter(nn.Module):
        """An adapter that applies to each row the weights of the row's task."""

        def __init__(self, name: str, activation: nn.Module) -> None:
            super().__init__()
            self.activation = activation
            for weight in ("down", "down_bias", "up", "up_bias", "gain", "shift"):
                self.register_buffer(weight, stack(f"{name}.{weight}"))

        def forward(self, x: Tensor) -> Tensor:
            ids = mixed.task_ids
            z = self.activation(x @ self.down[ids] + self.down_bias[ids].unsqueeze(1))
            z = z @ self.up[ids] + self.up_bias[ids].unsqueeze(1)
            z = F.layer_norm(z, x.shape[-1:], eps=ADAPTER_NORM_EPS)
            return x + z * self.gain[ids].unsqueeze(1) + self.shift[ids].unsqueeze(1)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            adapters = {n: m for n, m in mixed.named_modules() if isinstance(m, Adapter) and not m.is_identity}
            row_adapters = {name: RowAdapter(name, adapter.activation) for name, adapter in adapters.items()}
            fills = {"bias": MASKED_LOGIT, "apart": MASKED_LOGIT}
            task_buffers = ["first", "queries", "edges", "own", "apart", "paths"]
            biases = [name for name, _ in mixed.named_buffers() if name.endswith(".bias")]
            task_buffers += [name for name in biases if name.startswith("decoder")]
            for name in task_buffers:
                self.register_buffer(name.replace(".", "_"), stack(name, fills.get(name.rpartition(".")[2], 0.0)))
            for block in mixed.decoder:  # the bias depends on the row's task, and is set in every call
                if "bias" in block._buffers:
                    del block.bias
            for name, adapter in row_adapters.items():
                parent, _, last = name.rpartition(".")
                setattr(mixed.get_submodule(parent), last, adapter)
            self.base = mixed

        def forward(self, input_ids: Tensor, attention_mask: Tensor, task_ids: Tensor) -> Tensor:
            mixed.task_ids = task_ids
            encoded, padding = self.base.encode(input_ids, attention_mask)
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
    with graphs.silence_output():
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
    onnx.save_model(graphs.strip_metadata(program.model_proto), path)


def resident() -> float:
    """Return the resident memory of this process, in MB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert match
    return int(match[1]) / 1e3


def memory(folder: Path, threads: int) -> None:
    """Print as JSON the resident memory in MB after all tasks of a folder were loaded and predicted a row."""
    from hyperformer.runtime import Bundle, load

    tasks = load(folder, threads=threads)
    for bundle in [tasks] if isinstance(tasks, Bundle) else tasks.values():
        bundle({"a": "a b"})
    print(json.dumps(resident()))


def speed(folder: Path, threads: int, seconds: float) -> None:
    """Print a JSON line: the median seconds of a batch in this process, by shape and variant.

    Args:
        folder: The folder that `write_models` wrote.
        threads: Number of threads of each session.
        seconds: Minimum time for each shape, in seconds; at least four rounds are timed.
    """
    import onnxruntime

    from hyperformer.runtime import load

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    mixed = onnxruntime.InferenceSession(folder / "mixed.onnx", options, providers=["CPUExecutionProvider"])
    shared, baked = load(folder / "onnx_shared", threads=threads), load(folder / "onnx" / SINGLE_TASK, threads=threads)
    names = [*LABELS, "stsb"]
    draw = np.random.default_rng(0)

    def run(bundle: Any, ids: np.ndarray[Any, Any]) -> Any:
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return bundle._session.run(["scores"], inputs, bundle._options)[0]

    def run_routed(ids: np.ndarray[Any, Any], tasks: np.ndarray[Any, Any]) -> list[Any]:
        scores: list[Any] = [None] * len(ids)
        for task in np.unique(tasks):
            rows = np.flatnonzero(tasks == task)
            for row, row_scores in zip(rows, run(shared[names[task]], ids[rows]), strict=True):
                scores[row] = row_scores
        return scores

    def run_stacked(ids: np.ndarray[Any, Any], tasks: np.ndarray[Any, Any]) -> Any:
        return mixed.run(["scores"], {"input_ids": ids, "attention_mask": np.ones_like(ids), "task_ids": tasks})[0]

    variants: dict[str, Callable[[Any, Any], Any]] = {
        SINGLE: lambda ids, tasks: run(baked, ids),
        "shared base, one task": lambda ids, tasks: run(shared[SINGLE_TASK], ids),
        "shared base, mixed tasks routed": run_routed,
        "stacked graph, mixed tasks": run_stacked,
    }
    medians = {}
    for batch, length in SHAPES:
        ids, tasks = draw.integers(100, 250, (batch, length)), draw.integers(0, len(names), batch)
        for expected, scores in zip(run_routed(ids, tasks), run_stacked(ids, tasks), strict=True):
            np.testing.assert_allclose(expected, scores[: len(expected)], atol=2e-3)
        times: dict[str, list[float]] = {name: [] for name in variants}
        first_start = time.perf_counter()
        while time.perf_counter() - first_start < seconds or len(times[SINGLE]) < 4:
            for name in draw.permutation(list(variants)).tolist():
                time.sleep(SETTLE)
                start = time.perf_counter()
                variants[name](ids, tasks)
                times[name].append(time.perf_counter() - start)
        medians[f"{batch} × {length}"] = {name: statistics.median(values[1:]) for name, values in times.items()}  # noqa: RUF001
    print(json.dumps(medians))


def run_self(*arguments: object) -> Any:
    """Run this file in another process and return the JSON that it prints last."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Measure in several processes and print sizes, memory and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(SIZES), default="t5-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="seconds for each shape and process, at least four rounds"
    )
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--speed", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.memory:
        memory(options.memory, options.threads)
        return
    if options.speed:
        speed(options.speed, options.threads, options.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, options.sizes)
        base = (folder / "onnx_shared" / "model.onnx").stat().st_size / 1e6
        added = {p.parent.name: p.stat().st_size / 1e6 for p in (folder / "onnx_shared").glob("*/*.onnx_adapter")}
        single = (folder / "onnx" / SINGLE_TASK / "model.onnx").stat().st_size / 1e6
        print(f"{options.sizes}, {options.threads} threads, {options.processes} processes")
        each = ", ".join(f"{name} {mb:.2f} MB ({100 * mb / base:.2f} %)" for name, mb in sorted(added.items()))
        print(f"files: base {base:.1f} MB; added per task: {each}; graph of one task {single:.1f} MB")
        folders = {
            SINGLE: f"onnx/{SINGLE_TASK}",
            "eight tasks on a shared base": "onnx_shared",
            "eight tasks' graphs": "onnx",
        }
        used = {
            name: statistics.median(
                run_self("--memory", folder / path, "--threads", options.threads) for _ in range(options.processes)
            )
            for name, path in folders.items()
        }
        print("\n".join(f"memory: {name} {mb:.0f} MB, {mb / used[SINGLE]:.2f}" for name, mb in used.items()))
        runs = []
        for number in range(options.processes):
            runs.append(run_self("--speed", folder, "--threads", options.threads, "--seconds", options.seconds))
            print(f"process {number + 1} of {options.processes} is done", file=sys.stderr)
        names = list(runs[0][next(iter(runs[0]))])
        print(f"\n| batch × tokens | {names[0]}, ms | {' | '.join(names[1:])} |\n|{' --- |' * (len(names) + 1)}")  # noqa: RUF001
        for shape in runs[0]:
            ours = statistics.median(run[shape][names[0]] for run in runs)
            ratios = [statistics.median(run[shape][n] / run[shape][names[0]] for run in runs) for n in names[1:]]
            print(f"| {shape} | {1000 * ours:.2f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()
