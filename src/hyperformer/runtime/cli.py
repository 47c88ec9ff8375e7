"""The `hyperformer` command: answers of an exported task at the shell."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from hyperformer.runtime import load
from hyperformer.types import HyperFormerError


def _row(words: str) -> dict[str, object]:
    try:
        row = json.loads(words)
    except ValueError as error:
        raise HyperFormerError(
            f'the row {words!r} is not JSON ({error}); write it like \'{{"sentence": "…"}}\''
        ) from None
    if not isinstance(row, dict):
        raise HyperFormerError(f'the row {words!r} is not a JSON object; write it like \'{{"sentence": "…"}}\'')
    return row


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 where every row was answered, 1 after a mistake that the text on stderr names."""
    parser = argparse.ArgumentParser(prog="hyperformer", description="Answers from exported HyperFormer tasks.")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="answer rows with an exported task")
    predict.add_argument("bundle", help="the folder of an exported task")
    predict.add_argument("row", nargs="+", help="a JSON object with the columns of the task's text")
    given = parser.parse_args(arguments)
    try:
        rows = [_row(words) for words in given.row]
        for answer in load(given.bundle).answer(rows):
            shown = {key: value for key, value in asdict(answer).items() if value is not None}
            print(json.dumps(shown, ensure_ascii=False))
    except HyperFormerError as error:
        print(f"hyperformer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
