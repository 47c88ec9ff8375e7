"""A server under load: many clients that ask mixed tasks, malformed requests among them, every answer checked.

    python benchmarks/serving.py data/06_models/onnx --rows data/03_primary/rows
    python benchmarks/serving.py data/06_models/onnx_shared --rows data/03_primary/rows --clients 32 --seconds 60
    python benchmarks/serving.py data/06_models/onnx --rows data/03_primary/rows --clients 24 --hostile 8

`hyperformer serve` runs with batches of what waits and with rows one by one, in turns. Clients ask for one to four
validation rows of a task drawn at random; one request in ten is malformed and must be refused. Answers are compared
with those of the same folder without a server.

With `--hostile N` one server answers the clients alone, then beside N hostile ones of another process: the largest
legal request again and again, bodies of empty strings, pipelined requests of 256 rows, and connections that never ask.
Then one client asks for one row at a time, alone and beside the largest legal request to another task.
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

from hostile import Rows, attack, infer_body, largest_body, post, repeat

MALFORMED: list[tuple[bytes, int]] = [
    (b"{", 400),
    (b'{"inputs": []}', 400),
    (b'{"inputs": [{"name": "nothing", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}', 400),
    (b'{"inputs": [{"name": "sentence", "shape": [7], "datatype": "BYTES", "data": ["a"]}]}', 400),
    (b'{"inputs": [{"name": "sentence", "shape": [1], "datatype": "FP32", "data": [1.0]}]}', 400),
    (b'{"text": "' + b"a" * (5 << 20) + b'"}', 413),
]
SAMPLE = 2.0  # seconds between two looks at the memory
SETTLE = 2.0  # seconds for a server to warm up, or for hostile clients to begin
TOLERANCE = 1e-4


class Clients:
    """Threads that ask a server, and what came back; a share of the requests is malformed."""

    def __init__(self, port: int, rows: dict[str, Rows], answers: dict[str, list[Any]], share: float = 0.1) -> None:
        self.port, self.rows, self.answers, self.share = port, rows, answers, share
        self.seconds: list[float] = []
        self.found = {"answered": 0, "refused": 0, "wrong": 0, "lost": 0, "5xx": 0, "told to come back": 0}
        self.lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client, args=(number, until)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def client(self, number: int, until: float) -> None:
        draw = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                kind = self.malformed(connection, draw) if draw.random() < self.share else self.ask(connection, draw)
            except (OSError, http.client.HTTPException):
                kind, connection = "lost", http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            with self.lock:
                self.found[kind] += 1
                if kind == "answered":
                    self.seconds.append(time.monotonic() - began)

    def malformed(self, connection: http.client.HTTPConnection, draw: random.Random) -> str:
        body, expected = draw.choice(MALFORMED)
        status, _ = post(connection, draw.choice(list(self.rows)), body)
        return "5xx" if status >= 500 else "refused" if status == expected else "wrong"

    def ask(self, connection: http.client.HTTPConnection, draw: random.Random) -> str:
        task = draw.choice(list(self.rows))
        start, count = draw.randrange(len(self.rows[task]) - 4), draw.randrange(1, 5)
        chosen = self.rows[task][start : start + count]
        status, body = post(connection, task, infer_body(chosen))
        if status == 429:
            return "told to come back"
        if status >= 500:
            return "5xx"
        given = {one["name"]: one["data"] for one in json.loads(body)["outputs"]} if status == 200 else {}
        expected = self.answers[task][start : start + count]
        shares = list(itertools.chain.from_iterable(answer.probabilities.values() for answer in expected))
        same = len(given.get("probabilities", [])) == len(shares) and all(
            abs(one - other) < TOLERANCE for one, other in zip(given["probabilities"], shares, strict=True)
        )
        return "answered" if same else "wrong"


def resident(process: int) -> float:
    """What a process has in memory, MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) / 1e3


@contextlib.contextmanager
def serving(root: Path, threads: int, batch: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server, and give its process and port."""
    command = [sys.executable, "-m", "hyperformer.cli", "serve", str(root), "--port", "0", "--batch", str(batch)]
    with subprocess.Popen([*command, "--threads", str(threads)], stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr or [] if "tasks at" in line)
            yield process, int(line.split("127.0.0.1:")[1].split("/")[0])
        finally:
            process.kill()


def loaded(given: argparse.Namespace, batch: int, rows: Any, answers: Any) -> dict[str, Any]:
    """Collect the figures of one server under clients."""
    with serving(given.root, given.threads, batch) as (process, port):
        clients = Clients(port, rows, answers)
        memory: list[float] = []
        asking = threading.Thread(target=clients.run, args=(given.clients, given.seconds))
        asking.start()
        while asking.is_alive():
            memory.append(resident(process.pid))
            asking.join(SAMPLE)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    times = sorted(clients.seconds)
    quarter = max(1, len(memory) // 4)
    return {
        **clients.found,
        "requests/s": clients.found["answered"] / given.seconds,
        "ms, median": 1000 * statistics.median(times),
        "ms, 99 of 100": 1000 * times[int(0.99 * len(times))],
        "MB after a quarter": statistics.median(memory[quarter : 2 * quarter] or memory),
        "MB at the end": statistics.median(memory[-quarter:]),
        "exit code": code,
    }


def quantile(seconds: list[float], share: float) -> float:
    """Return the milliseconds within which a share of requests was answered."""
    return 1000 * sorted(seconds)[int(share * len(seconds))] if seconds else float("nan")


@contextlib.contextmanager
def beside(port: int, rows: dict[str, Rows], hostile: int, seconds: float) -> Iterator[None]:
    """Run hostile clients in a process of their own meanwhile, if there are any."""
    process = multiprocessing.get_context("spawn").Process(target=attack, args=(port, rows, hostile, seconds))
    if hostile:
        process.start()
        time.sleep(SETTLE)
    yield
    if hostile:
        process.kill()
        process.join()


def ask_beside(options: argparse.Namespace, port: int, rows: Any, answers: Any, hostile: int) -> dict[str, float]:
    """Measure clients beside hostile ones."""
    clients = Clients(port, rows, answers, share=0)
    with beside(port, rows, hostile, options.seconds + 2 * SETTLE):
        clients.run(options.clients, options.seconds)
    return {
        **clients.found,
        "requests/s": clients.found["answered"] / options.seconds,
        "ms, median": quantile(clients.seconds, 0.5),
        "ms, 99 of 100": quantile(clients.seconds, 0.99),
    }


def ask_one_row(options: argparse.Namespace, port: int, rows: dict[str, Rows], largest: bool) -> dict[str, float]:
    """Measure requests of one row, alone or beside the largest legal request to another task."""
    task, other = list(rows)[:2]
    until, seconds = time.monotonic() + options.seconds / 2, list[float]()
    body = largest_body(list(rows[other][0]))
    sending = threading.Thread(target=lambda: seconds.extend(repeat(port, other, body, until)))
    if largest:
        sending.start()
        time.sleep(SETTLE)
    row = repeat(port, task, infer_body(rows[task][:1]), until)
    if largest:
        sending.join()
    return {
        "one row: ms, median": quantile(row, 0.5),
        "one row: ms, 99 of 100": quantile(row, 0.99),
        "largest request: ms, median": quantile(seconds, 0.5),
        "largest request: ms, longest": quantile(seconds, 0.999999),
    }


def compare_with_hostile(options: argparse.Namespace, rows: Any, answers: Any) -> None:
    """Print what clients see alone and beside hostile ones, the ratio, and the server's memory before and after."""
    with serving(options.root, options.threads, 32) as (process, port):
        Clients(port, rows, answers, share=0).run(options.clients, SETTLE)
        memory = [resident(process.pid)]
        results = []
        for hostile in (0, options.hostile):
            results.append(ask_beside(options, port, rows, answers, hostile))
            memory.append(resident(process.pid))
            results[-1] |= {"memory at the start, MB": memory[-2], "memory at the end, MB": memory[-1]}
        for number, largest in enumerate((False, True)):
            results[number] |= ask_one_row(options, port, rows, largest)
        process.send_signal(signal.SIGTERM)
        print(f"exit code {process.wait(60)}", file=sys.stderr)
    print(f"{options.clients} clients, {options.seconds:g} s\n")
    print(f"| | alone | beside {options.hostile} hostile | ratio |\n| --- | --- | --- | --- |")
    for name, alone in results[0].items():
        beside_them = results[1][name]
        ratio = f"{beside_them / alone:.2f}" if alone else ""
        print(f"| {name} | {alone:.4g} | {beside_them:.4g} | {ratio} |")


def main() -> None:
    from hyperformer import text
    from hyperformer.data import read_rows
    from hyperformer.runtime import Bundle, load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder of exported tasks, of bundles or on a shared base")
    parser.add_argument("--rows", type=Path, required=True, help="the folder of checked rows")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of onnxruntime: clients need the other cores")
    parser.add_argument("--hostile", type=int, default=0, help="clients that ask for as much as they may")
    given = parser.parse_args()
    tasks = load(given.root)
    if isinstance(tasks, Bundle):
        raise SystemExit(f"{given.root} is one task; give the folder of several")
    rows, answers = {}, {}
    for name, bundle in tasks.items():
        columns = list(dict.fromkeys(text.columns(bundle.manifest.text)))
        rows[name] = [{one: str(row[one]) for one in columns} for row in read_rows(given.rows, name, "validation")]
        answers[name] = bundle.answer(rows[name])
    if given.hostile:
        compare_with_hostile(given, rows, answers)
        return
    runs: dict[int, list[dict[str, Any]]] = {32: [], 1: []}
    for _ in range(given.rounds):
        for batch, found in runs.items():
            found.append(loaded(given, batch, rows, answers))
            print(f"batches of {batch}: {found[-1]}", file=sys.stderr)
    print(f"{given.clients} clients, {given.seconds:g} s, {given.rounds} rounds; medians\n")
    print("| | batches of what waits | row by row |\n| --- | --- | --- |")
    for name in runs[1][0]:
        shown = [statistics.median(run[name] for run in found) for found in runs.values()]
        print(f"| {name} | {' | '.join(f'{value:.6g}' for value in shown)} |")


if __name__ == "__main__":
    main()
