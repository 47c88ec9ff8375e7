"""Measure the milliseconds of a training step by kind of work, beside the least that the machine allows.

    python benchmarks/step_profile.py                    # t5-small's size and MiniLM's, in float32 and bf16

The steps are those of `training.py`: HyperFormer++ on 32 rows of all tasks of GLUE. The kinds follow from the function
that runs an operator in the forward pass; an operator of the backward pass has the kind of its operator in the forward
pass. `Python and the rest` is the wall time without operators. The profiler itself makes steps slower, most of all
this kind, so the time of a step without the profiler is printed too.

The floor of matrix products and attention is their number of floating-point operations, divided by the measured speed
of a large matrix product. The floor of the other kinds is the number of bytes that their operators read, divided by the
measured speed of a copy.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import profile, record_function
from torch.utils.flop_counter import FlopCounterMode
from training_steps import GLUE, SIZES, hyperformer, make_batch, write_inputs

from hyperformer.backbones import adapters, dropout, encoder, encoder_layers, heads, layers, t5, t5_layers
from hyperformer.methods.base import Method
from hyperformer.training.trainer import uses_bf16

PRODUCTS, ATTENTION, OTHER, REST = "matrix products", "attention", "other operators", "Python and the rest"
SCOPES: list[tuple[Any, str, str]] = [
    (layers.LinearLayers, "__call__", PRODUCTS),
    (layers.LinearLayers, "convert", "casts"),
    (encoder_layers, "self_attend", ATTENTION),
    (t5_layers, "self_attend", ATTENTION),
    (t5_layers, "attend_to_source", ATTENTION),
    (t5_layers, "compute_position_biases", ATTENTION),
    (layers, "rms_norm", "layer norms"),
    (t5_layers, "rms_norm", "layer norms"),
    (encoder_layers, "layer_norm", "layer norms"),
    (adapters.ActiveWeights, "adapt", "adapters"),
    (layers, "dropout", "dropout"),
    (dropout.Dropout, "forward", "dropout"),
    (encoder.EncoderBackbone, "_embed_tokens", "embeddings"),
    (heads, "compute_loss", "loss"),
    (t5.F, "cross_entropy", "loss"),
]
"""The functions whose operators have a kind: owner, name and kind. Of nested functions, the innermost counts."""
STEPS = 2 * len(GLUE)


@contextmanager
def mark_kinds(method: Method) -> Iterator[None]:
    """Mark the operators of the functions in `SCOPES`, and of the generation of weights, with their kind."""
    with ExitStack() as stack:
        for owner, name, kind in [*SCOPES, (method, "weights", "weight generation")]:
            stack.enter_context(mock.patch.object(owner, name, mark(getattr(owner, name), kind)))
        yield


def mark(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Return a function whose operators are marked with a kind."""

    def marked(*args: Any, **options: Any) -> Any:
        with record_function(f"kind: {kind}"):
            return function(*args, **options)

    return marked


def find_kind(event: Any, kinds: dict[int, str]) -> str:
    """Return the kind of an operator, from the functions around it or from its operator in the forward pass."""
    if event.name in ("aten::_to_copy", "aten::copy_") and event.cpu_parent and event.cpu_parent.name == "aten::to":
        return "casts"
    while event is not None:
        if event.name.startswith("kind: "):
            return str(event.name).removeprefix("kind: ")
        if event.scope == 1 and event.sequence_nr in kinds:  # an operator of the backward pass
            return kinds[event.sequence_nr]
        event = event.cpu_parent
    return OTHER


def profile_steps(step: Callable[[int], None]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the milliseconds and the bytes of a step, by kind."""
    with profile(record_shapes=True) as profiled:
        start = time.perf_counter()
        for number in range(STEPS):
            step(number)
        wall = 1e3 * (time.perf_counter() - start) / STEPS
    events = profiled.events()
    kinds: dict[int, str] = {}  # of the operators of the forward pass, by sequence number
    for event in events:
        if (kind := find_kind(event, {})) != OTHER and event.sequence_nr >= 0:
            kinds[event.sequence_nr] = kind
    times: dict[str, float] = defaultdict(float)
    elements: dict[str, float] = defaultdict(float)
    for event in events:
        if event.name.startswith("aten::"):
            kind = find_kind(event, kinds)
            times[kind] += event.self_cpu_time_total / 1e3 / STEPS
            if not event.cpu_children:
                shapes = [shape for shape in event.input_shapes if shape]
                elements[kind] += sum(float(torch.Size(shape).numel()) for shape in shapes) / STEPS
    times[REST] = wall - sum(times.values())
    return dict(times), dict(elements)


def measure_speed(dtype: torch.dtype) -> tuple[float, float]:
    """Return the floating-point operations of a large matrix product, and the bytes read by a copy, per second."""
    x, weight = (torch.randn(2048, 2048).to(dtype) for _ in range(2))

    def best(function: Callable[[], Any]) -> float:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times)

    copied = torch.empty_like(x)
    return 2 * 2048**3 / best(lambda: x @ weight), x.nbytes / best(lambda: copied.copy_(x))


def report(size: str, dtype: torch.dtype) -> str:
    """Return the table of a step of HyperFormer++ on a backbone of a size, in a precision."""
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name), size)
        is_t5 = size == "t5-small"
        timed = hyperformer(Path(name), is_t5, bf16=dtype == torch.bfloat16)
    trained = [parameter for parameter in timed.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.0)

    def step(number: int) -> None:
        with record_function("kind: collate"):
            batch = make_batch(number, True, is_t5)
        timed.loss(*batch).backward()
        with record_function("kind: optimizer"):
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    step(0)
    with FlopCounterMode(display=False) as counter:
        for number in range(STEPS):
            step(number)
    flops = counter.get_total_flops() / STEPS
    start = time.perf_counter()
    for number in range(STEPS):
        step(number)
    plain = 1e3 * (time.perf_counter() - start) / STEPS
    with mark_kinds(timed.model.method):  # type: ignore[arg-type]
        times, elements = profile_steps(step)
    speed, bandwidth = measure_speed(dtype)
    floors = {kind: 1e3 * count * dtype.itemsize / bandwidth for kind, count in elements.items()}
    floors[PRODUCTS] = 1e3 * flops / speed
    del floors[ATTENTION]  # its operations are counted with those of the matrix products
    lines = [
        f"{size}, {str(dtype).removeprefix('torch.')}: {plain:.0f} ms a step; {sum(times.values()):.0f} ms with the "
        f"profiler. {flops / 1e9:.1f} GFLOP; the machine has {speed / 1e9:.0f} GFLOP/s and reads "
        f"{bandwidth / 1e9:.0f} GB/s.",
        "",
        "| kind | ms | share | floor, ms |",
        "| --- | --- | --- | --- |",
    ]
    for kind, milliseconds in sorted(times.items(), key=lambda item: -item[1]):
        floor = f"{floors[kind]:.1f}" if kind in floors else ""
        lines.append(f"| {kind} | {milliseconds:.1f} | {milliseconds / sum(times.values()):.1%} | {floor} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), help="only this size of the backbone")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    for size in [options.size] if options.size else SIZES:
        for dtype in [torch.float32, *([torch.bfloat16] if uses_bf16("auto") else [])]:
            print(report(size, dtype), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
