"""Compare the reader of rows with Python's own parsers: speed as a ratio in one run, and peak memory.

    python benchmarks/reading.py
    python benchmarks/reading.py --rows 100000 --rounds 3

Each round times `csv.reader` or `json.loads` alone, and the reader, on the same file. Peak memory is that
of a new process that reads 10,000 rows, and of one that reads all rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hyperformer.readers import RowFile

FEW_ROWS = 10_000
COLUMNS = ["text", "label"]


def write_files(folder: Path, count: int) -> list[Path]:
    """Write short rows as CSV and as JSONL."""
    table, lines = folder / f"{count}.csv", folder / f"{count}.jsonl"
    with table.open("w", newline="", encoding="utf-8") as csv_file, lines.open("w", encoding="utf-8") as jsonl_file:
        writer = csv.writer(csv_file)
        writer.writerow(COLUMNS)
        for number in range(count):
            row = f"the film number {number} is good", str(number % 2)
            writer.writerow(row)
            jsonl_file.write(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n")
    return [table, lines]


def parse_alone(path: Path) -> None:
    """Parse a file with `csv.reader` or `json.loads`, and discard the rows."""
    with path.open(encoding="utf-8", newline="") as file:
        for _ in csv.reader(file) if path.suffix == ".csv" else map(json.loads, file):
            pass


def read(path: Path) -> None:
    """Read a file with the reader of rows, and discard the rows."""
    for _ in RowFile(path, COLUMNS):
        pass


def measure_seconds(function: Callable[[Path], None], path: Path) -> float:
    """Return the seconds that a function takes on a file."""
    start = time.perf_counter()
    function(path)
    return time.perf_counter() - start


def measure_peak(path: Path) -> float:
    """Return the peak memory, in MB, of a new process that reads a file."""
    process = subprocess.run([sys.executable, __file__, "--peak-of", path], check=True, capture_output=True, text=True)
    return float(process.stdout)


def main() -> None:
    """Print a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of rows (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: %(default)s)")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        read(options.peak_of)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
        return
    with tempfile.TemporaryDirectory() as folder:
        few, many = write_files(Path(folder), FEW_ROWS), write_files(Path(folder), options.rows)
        for small, large in zip(few, many, strict=True):
            rounds = [
                (measure_seconds(parse_alone, large), measure_seconds(read, large)) for _ in range(options.rounds)
            ]
            alone, reader = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
            ratio = statistics.median(first / second for first, second in rounds)
            low, high = measure_peak(small), measure_peak(large)
            print(
                f"{large.suffix[1:]}: parser alone {alone:.2f} s, reader {reader:.2f} s, ratio {ratio:.2f}; "
                f"peak memory {low:.1f} MB with {FEW_ROWS} rows, {high:.1f} MB with {options.rows} rows, "
                f"ratio {high / low:.2f}"
            )


if __name__ == "__main__":
    main()
