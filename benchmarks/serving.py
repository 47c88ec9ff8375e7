"""A server under load: many clients that ask mixed tasks, malformed requests among them, every answer checked.

    python benchmarks/serving.py data/06_models/onnx --rows data/03_primary/rows
    python benchmarks/serving.py data/06_models/onnx_shared --rows data/03_primary/rows --clients 32 --seconds 60

`hyperformer serve` runs with batches of what waits and with rows one by one, in turns. Clients ask for one to four
validation rows of a task drawn at random; one request in ten is malformed and must be refused. Answers are compared
with those of the same folder without a server.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MALFORMED: list[tuple[bytes, int]] = [
    (b"{", 400),
    (b'{"inputs": []}', 400),
    (b'{"inputs": [{"name": "nothing", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}', 400),
    (b'{"inputs": [{"name": "sentence", "shape": [7], "datatype": "BYTES", "data": ["a"]}]}', 400),
    (b'{"inputs": [{"name": "sentence", "shape": [1], "datatype": "FP32", "data": [1.0]}]}', 400),
    (b'{"text": "' + b"a" * (5 << 20) + b'"}', 413),
]
SAMPLE = 2.0  # seconds between two looks at the memory
TOLERANCE = 1e-4


class Clients:
    """Threads that ask a server, and what came back."""

    def __init__(self, port: int, rows: dict[str, list[dict[str, str]]], answers: dict[str, list[Any]]) -> None:
        self.port, self.rows, self.answers = port, rows, answers
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
                kind = self.malformed(connection, draw) if draw.random() < 0.1 else self.ask(connection, draw)
            except (OSError, http.client.HTTPException):
                kind, connection = "lost", http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            with self.lock:
                self.found[kind] += 1
                if kind == "answered":
                    self.seconds.append(time.monotonic() - began)

    def malformed(self, connection: http.client.HTTPConnection, draw: random.Random) -> str:
        body, expected = draw.choice(MALFORMED)
        status, _ = posted(connection, draw.choice(list(self.rows)), body)
        return "5xx" if status >= 500 else "refused" if status == expected else "wrong"

    def ask(self, connection: http.client.HTTPConnection, draw: random.Random) -> str:
        task = draw.choice(list(self.rows))
        start, count = draw.randrange(len(self.rows[task]) - 4), draw.randrange(1, 5)
        chosen = self.rows[task][start : start + count]
        inputs = [
            {"name": name, "shape": [count], "datatype": "BYTES", "data": [row[name] for row in chosen]}
            for name in chosen[0]
        ]
        status, body = posted(connection, task, json.dumps({"inputs": inputs}).encode())
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


def posted(connection: http.client.HTTPConnection, task: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", f"/v2/models/{task}/infer", body, {"Content-Type": "application/json"})
    found = connection.getresponse()
    content = found.read()
    if found.will_close:
        connection.close()
    return found.status, content


def resident(process: int) -> float:
    """What a process has in memory, MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) / 1e3


def loaded(given: argparse.Namespace, batch: int, rows: Any, answers: Any) -> dict[str, Any]:
    """What clients saw of one server."""
    command = [sys.executable, "-m", "hyperformer.cli", "serve", str(given.root), "--port", "0", "--batch", str(batch)]
    command += ["--threads", str(given.threads)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = next(line for line in process.stderr or [] if "tasks at" in line)
            clients = Clients(int(said.split("127.0.0.1:")[1].split("/")[0]), rows, answers)
            memory: list[float] = []
            asking = threading.Thread(target=clients.run, args=(given.clients, given.seconds))
            asking.start()
            while asking.is_alive():
                memory.append(resident(process.pid))
                asking.join(SAMPLE)
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        finally:
            process.kill()
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
    given = parser.parse_args()
    tasks = load(given.root)
    if isinstance(tasks, Bundle):
        raise SystemExit(f"{given.root} is one task; give the folder of several")
    rows, answers = {}, {}
    for name, bundle in tasks.items():
        columns = list(dict.fromkeys(text.columns(bundle.manifest.text)))
        rows[name] = [{one: str(row[one]) for one in columns} for row in read_rows(given.rows, name, "validation")]
        answers[name] = bundle.answer(rows[name])
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
