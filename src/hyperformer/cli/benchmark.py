"""The command `benchmark`: compare the ways to run an exported task on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from hyperformer.cli.arguments import add_unpublished_option, check_rows, parse_positive_integer
from hyperformer.core.types import Source
from hyperformer.runtime.variants import (
    BATCH,
    LENGTHS,
    OPTIONS,
    RANDOM_ROWS,
    Measurement,
    measure_variants,
    open_variants,
)

FLAGS = {"int8": "--int8", "OpenVINO": "--provider openvino", "CUDA": "--provider cuda"}
"""Options of `predict` and `serve` by variant."""


def _benchmark(options: argparse.Namespace) -> None:
    bundles, reasons = open_variants(options.bundle, options.threads, options.allow_unpublished)
    float32 = bundles["float32"]
    sources: list[Source] = [float32.source(row) for row in check_rows(float32, options.rows)]
    measured = measure_variants(bundles, sources, options.seconds)
    short, long = (min(length, float32.manifest.max_source_tokens) for length in LENGTHS)
    texts = f"{len(sources)} rows" if sources else f"{RANDOM_ROWS} rows of random tokens, {short} and {long} a row"
    print(f"{float32.manifest.task}: median milliseconds of single rows and of batches of {BATCH}, on {texts}\n")
    print("| variant | single row, ms | batch, ms | times as fast as float32 | other labels |")
    print("| --- | --- | --- | --- | --- |")
    for line in measured:
        single, batch = measured[0].single / line.single, measured[0].batch / line.batch
        changed = f"{line.changed} of {line.rows}, and {line.ties} ties" if line is not measured[0] else ""
        print(f"| {line.name} | {line.single:.2f} | {line.batch:.2f} | {single:.2f} and {batch:.2f} | {changed} |")
    for reason in reasons:
        print(f"\n{reason}")
    print(f"\n{_recommend(measured, options.bundle)}")


def _recommend(measured: list[Measurement], folder: Path) -> str:
    """Return the sentence with the options of the variant that is fastest in batches, of those with the same labels."""
    best = min((line for line in measured if line.usable), key=lambda line: line.batch)
    arguments = "".join(f", {name}={value!r}" for name, value in OPTIONS[best.name].items())
    flag = f" {FLAGS[best.name]}" if best.name in FLAGS else ""
    return f"Fastest in batches: hyperformer predict{flag} {folder} ROWS, or in Python load({str(folder)!r}{arguments})"


def add_benchmark_command(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `benchmark`."""
    command.add_argument("bundle", type=Path, help="folder of an exported task")
    command.add_argument(
        "rows", nargs="*", help="rows to measure with, in the formats of predict (default: rows of random tokens)"
    )
    command.add_argument("--threads", type=parse_positive_integer, help="set the number of CPU threads")
    command.add_argument(
        "--seconds", type=float, default=5.0, help="set the time of each of both measurements (default: %(default)s)"
    )
    add_unpublished_option(command)
    command.set_defaults(run=_benchmark)
