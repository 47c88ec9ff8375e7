"""Runs every fenced command of the documents as a reader would, in a clone with an environment of its own, and counts.

    python docs/commands.py --steps 300                       # trainings of at most 300 steps; left out: as they are
    python docs/commands.py docs/tasks.md docs/serve.md       # of some documents
    python docs/commands.py --given /path/to/glue=FOLDER      # what stands for a path that the documents leave open

Of `console` blocks each line after `$` is run by bash, `python` and `bash` blocks as a whole, and a `yaml` block whose
first line is a comment with a path is written there. Comments above a fence say what else is to be known:

    <!-- skip BEGINNING: reason -->      commands that begin so are not run (`skip all`: none of the block)
    <!-- beside BEGINNING -->            runs beside what follows, until the document ends: it listens on port 8000
    <!-- in FOLDER -->                   where the block is run
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md", "docs/concepts.md", "docs/tasks.md", "docs/methods.md", "docs/scale.md", "docs/deploy.md",
    "docs/serve.md", "docs/results.md", "docs/reliability.md", "docs/troubleshooting.md", "CONTRIBUTING.md",
]  # fmt: skip
COMMANDS, OTHERS = ("console", "python", "bash"), ("yaml", "")
PORT, LONGEST = 8000, 3600.0
FENCE = re.compile(r"^((?:<!-- [^\n]* -->\n)*)```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (skip|beside|in) (.*?)(?:: (.*))? -->")
OPEN = re.compile(r"/path/to/[\w/.-]*")


@dataclass(frozen=True)
class Command:
    """Something to run: by which program, where, whether beside the rest, and why not, if not."""

    document: str
    line: int
    language: str
    text: str
    folder: str = "."
    beside: bool = False
    skipped: str = ""


def commands(document: str) -> Iterator[Command]:
    """What a document asks its reader to run or to write, in order.

    Raises:
        ValueError: a fence's language is none of the known, or a mark is of no use.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        marks, language, block = found.groups()
        line = text.count("\n", 0, found.start(3)) + 1
        known = [MARK.fullmatch(mark) for mark in marks.splitlines()]
        if language not in COMMANDS + OTHERS or None in known:
            raise ValueError(f"{document}, line {line}: got a fence {language!r} under {marks!r}, see docs/commands.py")
        marked = [mark.groups() for mark in known if mark]
        if language not in COMMANDS:
            if re.match(r"# conf/\S+\n", block):
                yield Command(document, line, language, block)
            continue
        lines = list(_lines(block, line)) if language == "console" else [(line, block)]
        folder = next((what for kind, what, _ in marked if kind == "in"), ".")
        for kind, what, _ in marked:
            if kind != "in" and what != "all" and not any(one.startswith(what) for _, one in lines):
                raise ValueError(f"{document}, line {line}: no command begins with {what!r}")
        for number, one in lines:
            reasons = [why for kind, what, why in marked if kind == "skip" and (what == "all" or one.startswith(what))]
            beside = any(kind == "beside" and one.startswith(what) for kind, what, _ in marked)
            yield Command(document, number, language, one, folder, beside, next(iter(reasons), ""))


def _lines(block: str, first: int) -> Iterator[tuple[int, str]]:
    """The commands of a console with the number of their first lines; a line without `$` goes on with the one above."""
    number, gathered = first, ""
    for place, line in enumerate(block.splitlines(), start=first):
        if line.startswith("$ "):
            if gathered:
                yield number, gathered
            number, gathered = place, line[2:]
        else:
            gathered += f"\n{line}"
    yield number, gathered


def prepare(place: Path, steps: int | None) -> Path:
    """A clone beside what the documents take for granted, its trainings shortened."""
    tree = place / "hyperformer"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tree)], check=True)
    rows = [f'{{"sentence": "The film is {word}."}}' for word in ("wonderful", "dull")]
    (tree / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (tree / "rows.csv").write_text("sentence\nThe film is wonderful.\nThe film is dull.\n")
    for folder, splits in (("tickets", {"train": 900, "validation": 60, "test": 60}), ("few", {"train": 40})):
        (place / folder).mkdir()
        numbers = count()
        for split, rows_of_it in splits.items():
            made = (f"{_ticket(n)}\n" for n in islice(numbers, rows_of_it))
            (place / folder / f"{split}.csv").write_text("subject,body,queue,hours\n" + "".join(made))
    with (tree / ".git" / "info" / "exclude").open("a") as file:
        file.write("rows.*\nanswers.*\nsentiment.onnx\nelsewhere\nrepository\ndvc_plots\nconf/mine\nconf/few\n")
    if steps is not None:
        for file in (tree / "conf").glob("*/parameters.yml"):
            text = file.read_text()
            less = re.sub(r"(?m)^(  steps: )(\d+)", lambda found: f"{found[1]}{min(int(found[2]), steps)}", text)
            file.write_text(less)
        name = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
        subprocess.run(["git", *name, "commit", "-qam", "fewer steps"], cwd=tree, check=True)
    return tree


def _ticket(number: int) -> str:
    """A row of a help desk: what it is about says the queue, and how it is put the hours."""
    about, queue = [("The invoice is wrong", "billing"), ("The button does nothing", "bug")][number % 2]
    told, hours = [("today", 4), ("this week", 24), ("at some time", 48)][number % 3]
    return f"{about} ({number}),Please see to it {told}.,{queue},{hours}"


def environment(tree: Path) -> dict[str, str]:
    """The reader's, with the clone's programs first."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**own, "PATH": f"{tree / '.venv' / 'bin'}:{own['PATH']}", "VIRTUAL_ENV": str(tree / ".venv")}


def run(command: Command, tree: Path, given: Mapping[str, str], beside: list[subprocess.Popen[bytes]]) -> str:
    """Runs or writes it; what went wrong, if anything did."""
    text = OPEN.sub(lambda found: given.get(found[0], found[0]), command.text)
    if command.language == "yaml":
        file = tree / text.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return ""
    program = ["python", "-c", text] if command.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    place = {"cwd": tree / command.folder, "env": environment(tree)}
    if command.beside:
        beside.append(subprocess.Popen(program, **place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return "" if _listens(beside[-1]) else f"nothing listens on port {PORT}"
    with tempfile.TemporaryFile() as said:  # not a pipe: what goes on in the background keeps its end open
        try:
            done = subprocess.run(program, **place, stdout=said, stderr=subprocess.STDOUT, timeout=LONGEST, check=False)
        except subprocess.TimeoutExpired:
            return f"was not done after {LONGEST:.0f} s"
        said.seek(0)
        return "" if done.returncode == 0 else f"exit code {done.returncode}\n{said.read().decode()[-4000:]}"


def _listens(process: subprocess.Popen[bytes]) -> bool:
    for _ in range(120):
        if process.poll() is not None:
            return False
        with socket.socket() as tried:
            if tried.connect_ex(("localhost", PORT)) == 0:
                return True
        time.sleep(0.5)
    return False


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("documents", nargs="*", default=DOCUMENTS, metavar="DOCUMENT")
    asked.add_argument("--steps", type=int, help="the most steps of a training that names none")
    asked.add_argument("--given", action="append", default=[], metavar="/path/to/x=FOLDER")
    found = asked.parse_args()
    given = dict(pair.split("=", 1) for pair in found.given)
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        tree = prepare(Path(place), found.steps)
        subprocess.run(["make", "env"], cwd=tree, check=True)
        for document in found.documents:
            outcomes = counts[document] = {"ran": 0, "skipped": 0, "failed": 0}
            beside: list[subprocess.Popen[bytes]] = []
            for command in commands(document):
                lacking = [path for path in OPEN.findall(command.text) if path not in given]
                why = command.skipped or (f"nothing is given for {lacking[0]}" if lacking else "")
                began = time.monotonic()
                wrong = "" if why else run(command, tree, given, beside)
                outcome = "skipped" if why else "failed" if wrong else "ran"
                outcomes[outcome] += 1
                shown = f"{document}:{command.line}: {outcome}, {time.monotonic() - began:.0f} s: "
                print(shown + command.text.splitlines()[0] + (f"  ({why})" if why else ""), flush=True)
                if wrong:
                    print(wrong, flush=True)
            for process in beside:
                process.terminate()
                process.wait()
    for document, outcomes in counts.items():
        print(f"{document}: {', '.join(f'{number} {outcome}' for outcome, number in outcomes.items())}")
    total = {outcome: sum(one[outcome] for one in counts.values()) for outcome in ("ran", "skipped", "failed")}
    print("all:", ", ".join(f"{number} {outcome}" for outcome, number in total.items()))
    sys.exit(total["failed"] > 0)


if __name__ == "__main__":
    main()
