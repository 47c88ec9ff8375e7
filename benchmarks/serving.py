"""Measure a server under load: many clients, some requests malformed; every answer is checked.

    python benchmarks/serving.py data/06_models/onnx --rows data/03_primary/rows
    python benchmarks/serving.py data/06_models/onnx_shared --rows data/03_primary/rows --clients 32 --seconds 60
    python benchmarks/serving.py data/06_models/onnx --rows data/03_primary/rows --clients 24 --hostile 8

`hyperformer serve` runs alternately with dynamic batching and without it (batches of one row). A request has one to
four validation rows of a random task; one request in ten is malformed and must be rejected. Answers are compared with
those of the same tasks without a server.

With `--hostile N` no client sends malformed requests. One server serves the clients alone, then together with N hostile
clients. Each hostile client repeats the largest allowed request, a body of empty strings or pipelined requests of 256
rows, or it keeps silent connections open. Then one client sends one row at a time, first alone,
then while another client repeats the largest allowed request to another task.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import multiprocessing
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile_clients import Rows, attack, infer_body, largest_body, post, repeat

MALFORMED: list[tuple[bytes, int]] = [
    (b"{", 400),
    (b'{"inputs": []}', 400),
    (b'{"inputs": [{"name": "nothing", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}', 400),
    (b'{"inputs": [{"name": "sentence", "shape": [7], "datatype": "BYTES", "data": ["a"]}]}', 400),
    (b'{"inputs": [{"name": "sentence", "shape": [1], "datatype": "FP32", "data": [1.0]}]}', 400),
    (b'{"text": "' + b"a" * (5 << 20) + b'"}', 413),
]
SAMPLE = 2.0  # seconds between two samples of the memory
SETTLE = 2.0  # seconds for a server to warm up, or for hostile clients to start
TOLERANCE = 1e-4  # maximum difference of a probability


class Clients:
    """Threads that send requests to a server and count the outcomes.

    Args:
        port: The server's port.
        rows: Rows of each task.
        answers: The expected answers of these rows.
        share: The share of malformed requests.
    """

    def __init__(self, port: int, rows: dict[str, Rows], answers: dict[str, list[Any]], share: float = 0.1) -> None:
        self.port, self.rows, self.answers, self.share = port, rows, answers, share
        self.seconds: list[float] = []
        self.outcomes = {"answered": 0, "rejected": 0, "wrong": 0, "lost": 0, "5xx": 0, "asked to retry": 0}
        self.lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> None:
        """Run a number of clients for some seconds."""
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.run_client, args=(number, until)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run_client(self, number: int, until: float) -> None:
        """Send requests until a time."""
        draw = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while time.monotonic() < until:
            start = time.monotonic()
            is_malformed = draw.random() < self.share
            try:
                outcome = self.send_malformed(connection, draw) if is_malformed else self.send(connection, draw)
            except (OSError, http.client.HTTPException):
                outcome, connection = "lost", http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            with self.lock:
                self.outcomes[outcome] += 1
                if outcome == "answered":
                    self.seconds.append(time.monotonic() - start)

    def send_malformed(self, connection: http.client.HTTPConnection, draw: random.Random) -> str:
        """Send a malformed request to a random task and return the outcome."""
        body, expected = draw.choice(MALFORMED)
        status, _ = post(connection, draw.choice(list(self.rows)), body)
        return "5xx" if status >= 500 else "rejected" if status == expected else "wrong"

    def send(self, connection: http.client.HTTPConnection, draw: random.Random) -> str:
        """Send one to four consecutive rows to a random task, check the response and return the outcome."""
        task = draw.choice(list(self.rows))
        start, count = draw.randrange(len(self.rows[task]) - 4), draw.randrange(1, 5)
        chosen = self.rows[task][start : start + count]
        status, body = post(connection, task, infer_body(chosen))
        if status == 429:
            return "asked to retry"
        if status >= 500:
            return "5xx"
        outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]} if status == 200 else {}
        expected = self.answers[task][start : start + count]
        probabilities = list(itertools.chain.from_iterable(answer.probabilities.values() for answer in expected))
        is_equal = len(outputs.get("probabilities", [])) == len(probabilities) and all(
            abs(a - b) < TOLERANCE for a, b in zip(outputs["probabilities"], probabilities, strict=True)
        )
        return "answered" if is_equal else "wrong"


def resident(process: int) -> float:
    """Return the resident memory of a process, in MB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))
    assert match
    return int(match[1]) / 1e3


@contextlib.contextmanager
def serving(root: Path, threads: int, batch: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server, and yield its process and port."""
    command = [sys.executable, "-m", "hyperformer.cli", "serve", str(root), "--port", "0", "--batch", str(batch)]
    with subprocess.Popen([*command, "--threads", str(threads)], stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr or [] if "tasks at" in line)
            yield process, int(line.split("127.0.0.1:")[1].split("/")[0])
        finally:
            process.kill()


def measure_load(options: argparse.Namespace, batch: int, rows: Any, answers: Any) -> dict[str, Any]:
    """Return the figures of one server under load with batches of at most `batch` rows."""
    with serving(options.root, options.threads, batch) as (process, port):
        clients = Clients(port, rows, answers)
        memory: list[float] = []
        load = threading.Thread(target=clients.run, args=(options.clients, options.seconds))
        load.start()
        while load.is_alive():
            memory.append(resident(process.pid))
            load.join(SAMPLE)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    times = sorted(clients.seconds)
    quarter = max(1, len(memory) // 4)
    return {
        **clients.outcomes,
        "requests/s": clients.outcomes["answered"] / options.seconds,
        "ms, median": 1000 * statistics.median(times),
        "ms, 99th percentile": 1000 * times[int(0.99 * len(times))],
        "MB after a quarter": statistics.median(memory[quarter : 2 * quarter] or memory),
        "MB at the end": statistics.median(memory[-quarter:]),
        "exit code": code,
    }


def quantile(seconds: list[float], share: float) -> float:
    """Return the time in ms within which a share of the requests got responses; NaN without requests."""
    return 1000 * sorted(seconds)[int(share * len(seconds))] if seconds else float("nan")


@contextlib.contextmanager
def hostile_load(port: int, rows: dict[str, Rows], hostile: int, seconds: float) -> Iterator[None]:
    """Run hostile clients, if any, in a separate process during the block."""
    process = multiprocessing.get_context("spawn").Process(target=attack, args=(port, rows, hostile, seconds))
    if hostile:
        process.start()
        time.sleep(SETTLE)
    yield
    if hostile:
        process.kill()
        process.join()


def measure_clients(options: argparse.Namespace, port: int, rows: Any, answers: Any, hostile: int) -> dict[str, float]:
    """Return the figures of clients while a number of hostile clients run."""
    clients = Clients(port, rows, answers, share=0)
    with hostile_load(port, rows, hostile, options.seconds + 2 * SETTLE):
        clients.run(options.clients, options.seconds)
    return {
        **clients.outcomes,
        "requests/s": clients.outcomes["answered"] / options.seconds,
        "ms, median": quantile(clients.seconds, 0.5),
        "ms, 99th percentile": quantile(clients.seconds, 0.99),
    }


def measure_one_row(options: argparse.Namespace, port: int, rows: dict[str, Rows], largest: bool) -> dict[str, float]:
    """Return the figures of requests of one row, alone or during the largest requests to another task."""
    task, other = list(rows)[:2]
    until, seconds = time.monotonic() + options.seconds / 2, list[float]()
    body = largest_body(list(rows[other][0]))
    sender = threading.Thread(target=lambda: seconds.extend(repeat(port, other, body, until)))
    if largest:
        sender.start()
        time.sleep(SETTLE)
    row = repeat(port, task, infer_body(rows[task][:1]), until)
    if largest:
        sender.join()
    return {
        "one row: ms, median": quantile(row, 0.5),
        "one row: ms, 99th percentile": quantile(row, 0.99),
        "largest request: ms, median": quantile(seconds, 0.5),
        "largest request: ms, maximum": quantile(seconds, 0.999999),
    }


def compare_with_hostile(options: argparse.Namespace, rows: Any, answers: Any) -> None:
    """Print the figures of clients alone and together with hostile clients, their ratio, and the server's memory."""
    with serving(options.root, options.threads, 32) as (process, port):
        Clients(port, rows, answers, share=0).run(options.clients, SETTLE)
        memory = [resident(process.pid)]
        results = []
        for hostile in (0, options.hostile):
            results.append(measure_clients(options, port, rows, answers, hostile))
            memory.append(resident(process.pid))
            results[-1] |= {"memory at the start, MB": memory[-2], "memory at the end, MB": memory[-1]}
        for number, largest in enumerate((False, True)):
            results[number] |= measure_one_row(options, port, rows, largest)
        process.send_signal(signal.SIGTERM)
        print(f"exit code {process.wait(60)}", file=sys.stderr)
    print(f"{options.clients} clients, {options.seconds:g} s\n")
    print(f"| | alone | with {options.hostile} hostile | ratio |\n| --- | --- | --- | --- |")
    for name, alone in results[0].items():
        under_attack = results[1][name]
        ratio = f"{under_attack / alone:.2f}" if alone else ""
        print(f"| {name} | {alone:.4g} | {under_attack:.4g} | {ratio} |")


def main() -> None:
    """Measure and print the table."""
    from hyperformer.core import text
    from hyperformer.data.storage import read_rows
    from hyperformer.runtime import Bundle, load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of exported tasks: bundles, or tasks on a shared base")
    parser.add_argument("--rows", type=Path, required=True, help="folder of each task's rows")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--threads", type=int, default=1, help="number of threads of ONNX Runtime; clients need the other cores"
    )
    parser.add_argument("--hostile", type=int, default=0, help="number of hostile clients")
    options = parser.parse_args()
    tasks = load(options.root)
    if isinstance(tasks, Bundle):
        raise SystemExit(
            f"{options.root} is a bundle of one task; expected a folder of several tasks. Use its parent folder."
        )
    rows, answers = {}, {}
    for name, bundle in tasks.items():
        columns = list(dict.fromkeys(text.find_columns(bundle.manifest.text)))
        rows[name] = [
            {column: str(row[column]) for column in columns} for row in read_rows(options.rows, name, "validation")
        ]
        answers[name] = bundle.answer(rows[name])
    if options.hostile:
        compare_with_hostile(options, rows, answers)
        return
    runs: dict[int, list[dict[str, Any]]] = {32: [], 1: []}
    for _ in range(options.rounds):
        for batch, results in runs.items():
            results.append(measure_load(options, batch, rows, answers))
            print(f"batches of at most {batch}: {results[-1]}", file=sys.stderr)
    print(f"{options.clients} clients, {options.seconds:g} s, {options.rounds} rounds; medians\n")
    print("| | dynamic batching | row by row |\n| --- | --- | --- |")
    for name in runs[1][0]:
        medians = [statistics.median(result[name] for result in results) for results in runs.values()]
        print(f"| {name} | {' | '.join(f'{value:.6g}' for value in medians)} |")


if __name__ == "__main__":
    main()
