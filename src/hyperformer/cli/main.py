"""The `hyperformer` command: predict with exported tasks, and measure, inspect, verify, convert and serve them.

Exit codes: 0 for success, 1 for an error that is printed to stderr, 2 for an invalid command line, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import hyperformer
from hyperformer.cli.benchmark import add_benchmark_command
from hyperformer.cli.bundles import add_bundle_commands, add_strings_command
from hyperformer.cli.init import add_init_command
from hyperformer.cli.predict import add_predict_command
from hyperformer.cli.serve import add_serve_command
from hyperformer.core.errors import HyperFormerError


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyperformer",
        description="Predict answers with exported HyperFormer tasks, and inspect, verify, convert and serve tasks.",
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True)
    add_init_command(commands.add_parser("init", help="write an environment that trains on files of labelled texts"))
    add_predict_command(commands.add_parser("predict", help="predict the answers of rows with an exported task"))
    add_benchmark_command(
        commands.add_parser("benchmark", help="measure the ways to run an exported task on this machine")
    )
    add_bundle_commands(commands)
    add_strings_command(
        commands.add_parser("strings", help="write a task as one ONNX graph that includes its tokenizer")
    )
    add_serve_command(
        commands.add_parser("serve", help="serve tasks over HTTP with the Open Inference Protocol, version 2")
    )
    return parser


class _PrintVersion(argparse.Action):
    """Prints the version; reading it takes time that other commands need not spend."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"hyperformer {hyperformer.__version__}")
        parser.exit()


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _build_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader stopped early, such as `head`
        _discard_stdout()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = _describe_error(error)
        if message is None:
            raise
        print(f"hyperformer: {message}", file=sys.stderr)
        return 1
    return 0


def _describe_error(error: Exception) -> str | None:
    """Return the message of an error that the user can fix, or None; if the output is closed, discard the rest."""
    if isinstance(error, HyperFormerError):
        return str(error)
    if isinstance(error, UnicodeEncodeError):
        return (
            f"the output is in {error.encoding}, which has no {error.object[error.start]!r}; expected UTF-8. Set "
            "PYTHONIOENCODING=utf-8, or a UTF-8 locale, and run again."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Check the path and its permissions."
    if isinstance(error, OSError) or (isinstance(error, AttributeError) and sys.stdout is None):
        _discard_stdout()
        return f"cannot write the answers ({error})"
    return None


def _discard_stdout() -> None:
    """Redirect standard output to the null device, as Python would write the buffer again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
