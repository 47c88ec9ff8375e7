"""Run every fenced command of the documents like a reader, in a clone with its own environment, and count outcomes.

    python docs/commands.py --steps 300                       # trainings of at most 300 steps; by default as configured
    python docs/commands.py docs/tasks.md docs/serve.md       # only these documents
    python docs/commands.py --given /path/to/glue=FOLDER      # the folder for a placeholder in the documents

In `console` blocks, bash runs each command after `$`; lines without `$` continue the command. `python` and `bash`
blocks run as a whole. A `yaml` block whose first line is a comment with a path in conf/ is written to that path. A
command with a placeholder for which `--given` sets no folder is skipped. HTML comments above a fence are directives:

    <!-- skip BEGINNING: reason -->      skip the commands that start with BEGINNING (`skip all`: the whole block)
    <!-- beside BEGINNING -->            run a server on port 8000 in the background until the document ends
    <!-- in FOLDER -->                   run the block in FOLDER
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
    "CHANGELOG.md", "SECURITY.md", "examples/README.md",
]  # fmt: skip
COMMANDS = ("console", "python", "bash")
"""Languages of fences that contain commands."""
OTHERS = ("yaml", "")
"""Other allowed languages of fences."""
PORT = 8000
TIMEOUT = 3600.0  # seconds for a command
FENCE = re.compile(r"^((?:<!-- [^\n]* -->\n)*)```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(r"<!-- (skip|beside|in) (.*?)(?:: (.*))? -->")
PLACEHOLDER = re.compile(r"/path/to/[\w/.-]*")


@dataclass(frozen=True)
class Command:
    """A command of a document, or a file to write."""

    document: str
    line: int
    language: str
    text: str
    folder: str = "."
    is_background: bool = False
    skipped: str = ""
    """The reason for skipping the command; empty if the command runs."""


def commands(document: str) -> Iterator[Command]:
    """Yield the commands of a document and the files that it tells the reader to write, in order.

    Raises:
        ValueError: a fence has an unknown language, or a directive is unknown or matches no command.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        comments, language, block = fence.groups()
        line = text.count("\n", 0, fence.start(3)) + 1
        matches = [DIRECTIVE.fullmatch(comment) for comment in comments.splitlines()]
        if language not in COMMANDS + OTHERS or None in matches:
            raise ValueError(
                f"{document}, line {line}: got a fence {language!r} under {comments!r}; "
                "expected a language and directives that docs/commands.py lists"
            )
        directives = [match.groups() for match in matches if match]
        if language not in COMMANDS:
            if re.match(r"# conf/\S+\n", block):
                yield Command(document, line, language, block)
            continue
        numbered = list(_commands_of_console(block, line)) if language == "console" else [(line, block)]
        folder = next((target for kind, target, _ in directives if kind == "in"), ".")
        for kind, target, _ in directives:
            if kind != "in" and target != "all" and not any(command.startswith(target) for _, command in numbered):
                raise ValueError(f"{document}, line {line}: no command begins with {target!r}")
        for number, command in numbered:
            reasons = [
                reason
                for kind, target, reason in directives
                if kind == "skip" and (target == "all" or command.startswith(target))
            ]
            is_background = any(kind == "beside" and command.startswith(target) for kind, target, _ in directives)
            yield Command(document, number, language, command, folder, is_background, next(iter(reasons), ""))


def _commands_of_console(block: str, first: int) -> Iterator[tuple[int, str]]:
    """Yield the line number and text of each command; a line without `$` continues the command above.

    Args:
        block: The text of the block.
        first: The line number of the first line of the block in its document.
    """
    start, command = first, ""
    for number, line in enumerate(block.splitlines(), start=first):
        if line.startswith("$ "):
            if command:
                yield start, command
            start, command = number, line[2:]
        else:
            command += f"\n{line}"
    yield start, command


def prepare(root: Path, steps: int | None) -> Path:
    """Clone the repository, shorten its trainings, and write the files that the documents assume.

    Args:
        root: The folder in which the clone and the folders `tickets` and `few` are created.
        steps: The maximum number of steps of a training; None leaves the trainings unchanged.

    Returns:
        The folder of the clone.
    """
    tree = root / "hyperformer"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tree)], check=True)
    rows = [f'{{"sentence": "The film is {word}."}}' for word in ("wonderful", "dull")]
    (tree / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (tree / "rows.csv").write_text("sentence\nThe film is wonderful.\nThe film is dull.\n")
    for folder, splits in (("tickets", {"train": 900, "validation": 60, "test": 60}), ("few", {"train": 40})):
        (root / folder).mkdir()
        numbers = count()
        for split, size in splits.items():
            tickets = (f"{_ticket(n)}\n" for n in islice(numbers, size))
            (root / folder / f"{split}.csv").write_text("subject,body,queue,hours\n" + "".join(tickets))
    with (tree / ".git" / "info" / "exclude").open("a") as file:
        file.write("rows.*\nanswers.*\nsentiment.onnx\nelsewhere\nrepository\ndvc_plots\nconf/mine\nconf/few\n")
    if steps is not None:
        for file in (tree / "conf").glob("*/parameters.yml"):
            file.write_text(shorten(file.read_text(), steps))
        author = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
        subprocess.run(["git", *author, "commit", "-qam", "fewer steps"], cwd=tree, check=True)
    return tree


def _ticket(number: int) -> str:
    """Return a help desk ticket as a CSV row; the subject determines the queue, the body determines the hours."""
    subject, queue = [("The invoice is wrong", "billing"), ("The button does nothing", "bug")][number % 2]
    urgency, hours = [("today", 4), ("this week", 24), ("at some time", 48)][number % 3]
    return f"{subject} ({number}),Please see to it {urgency}.,{queue},{hours}"


def environment(tree: Path) -> dict[str, str]:
    """Return the environment variables, with the clone's programs first on the path."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**inherited, "PATH": f"{tree / '.venv' / 'bin'}:{inherited['PATH']}", "VIRTUAL_ENV": str(tree / ".venv")}


def shorten(text: str, steps: int | None) -> str:
    """Lower each `steps: N` of settings and `steps=N` of a command to at most `steps`; None changes nothing."""
    if steps is None:
        return text
    return re.sub(r"(?m)(^  steps: |\bsteps=)(\d+)", lambda match: f"{match[1]}{min(int(match[2]), steps)}", text)


def run(
    command: Command,
    tree: Path,
    placeholders: Mapping[str, str],
    background: list[subprocess.Popen[bytes]],
    steps: int | None = None,
) -> str:
    """Run a command, or write a file.

    Args:
        command: The command.
        tree: The clone.
        placeholders: The path that replaces each placeholder.
        background: Processes in the background, to which this function adds.
        steps: The maximum number of steps of a training; None leaves the trainings unchanged.

    Returns:
        The error message; empty if the command succeeded.
    """
    text = shorten(PLACEHOLDER.sub(lambda match: placeholders.get(match[0], match[0]), command.text), steps)
    if command.language == "yaml":
        file = tree / text.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return ""
    program = ["python", "-c", text] if command.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    options = {"cwd": tree / command.folder, "env": environment(tree)}
    if command.is_background:
        background.append(subprocess.Popen(program, **options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return "" if _listens(background[-1]) else f"nothing listens on port {PORT}"
    with tempfile.TemporaryFile() as output:  # a pipe would stay open while background processes run
        try:
            process = subprocess.run(
                program, **options, stdout=output, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return f"timed out after {TIMEOUT:.0f} s"
        output.seek(0)
        return "" if process.returncode == 0 else f"exit code {process.returncode}\n{output.read().decode()[-4000:]}"


def _listens(process: subprocess.Popen[bytes]) -> bool:
    """Wait up to a minute for a process to listen on the port, and return whether it does."""
    for _ in range(120):
        if process.poll() is not None:
            return False
        with socket.socket() as client:
            if client.connect_ex(("localhost", PORT)) == 0:
                return True
        time.sleep(0.5)
    return False


def main() -> None:
    """Run the documents' commands, print each outcome and the counts, and exit with 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="*", default=DOCUMENTS, metavar="DOCUMENT")
    parser.add_argument("--steps", type=int, help="maximum number of steps of the configured trainings")
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="/path/to/x=FOLDER",
        help="folder that replaces a placeholder of the documents",
    )
    options = parser.parse_args()
    placeholders = dict(pair.split("=", 1) for pair in options.given)
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        tree = prepare(Path(root), options.steps)
        subprocess.run(["make", "env"], cwd=tree, check=True)
        for document in options.documents:
            outcomes = counts[document] = {"ran": 0, "skipped": 0, "failed": 0}
            background: list[subprocess.Popen[bytes]] = []
            for command in commands(document):
                missing = [path for path in PLACEHOLDER.findall(command.text) if path not in placeholders]
                reason = command.skipped or (f"no --given for {missing[0]}" if missing else "")
                start = time.monotonic()
                error = "" if reason else run(command, tree, placeholders, background, options.steps)
                outcome = "skipped" if reason else "failed" if error else "ran"
                outcomes[outcome] += 1
                prefix = f"{document}:{command.line}: {outcome}, {time.monotonic() - start:.0f} s: "
                print(prefix + command.text.splitlines()[0] + (f"  ({reason})" if reason else ""), flush=True)
                if error:
                    print(error, flush=True)
            for process in background:
                process.terminate()
                process.wait()
    for document, outcomes in counts.items():
        print(f"{document}: {', '.join(f'{number} {outcome}' for outcome, number in outcomes.items())}")
    total = {outcome: sum(each[outcome] for each in counts.values()) for outcome in ("ran", "skipped", "failed")}
    print("all:", ", ".join(f"{number} {outcome}" for outcome, number in total.items()))
    sys.exit(total["failed"] > 0)


if __name__ == "__main__":
    main()
