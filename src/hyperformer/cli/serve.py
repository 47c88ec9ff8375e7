"""The command `serve`: an HTTP server of exported tasks."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperformer.cli.arguments import add_provider_option, add_unpublished_option, missing_extra_error

SERVE_OPTIONS = {
    "host": "set the address to bind to",
    "port": "set the port to bind to; 0 selects a free port",
    "allowed-hosts": "accept these names in the Host header, separated by commas; * accepts any name; required unless "
    "--host is a loopback address",
    "threads": "set the number of CPU threads of each task",
    "batch": "set the maximum number of rows in a batch; 1 disables batching",
    "queue": "set the maximum number of rows in the queue",
    "rows": "set the maximum number of rows in a request",
    "body-bytes": "set the maximum size of a request body, in bytes",
    "text-bytes": "set the maximum size of a text, in bytes",
    "poll-seconds": "set the interval at which the folder is checked for changed tasks, in seconds; 0 disables it",
    "shutdown-seconds": "set the time limit for finishing accepted requests after a signal to stop, in seconds",
}


def _split_names(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


OPTION_TYPES: dict[str, Callable[[str], Any]] = {"host": str, "allowed-hosts": _split_names, "poll-seconds": float}
"""Types of the options in `SERVE_OPTIONS` that are not integers."""


def add_serve_command(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `serve`."""
    command.add_argument("root", type=Path, help="folder of exported tasks, as bundles or on a shared base")
    command.add_argument("--int8", action="store_true", help="use the int8 graphs")
    add_provider_option(command)
    add_unpublished_option(command)
    for name, description in SERVE_OPTIONS.items():
        command.add_argument(f"--{name}", type=OPTION_TYPES.get(name, int), default=argparse.SUPPRESS, help=description)
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # before the server handles signals, and after it has stopped
    try:
        from hyperformer.serving.server import ServerSettings, run
    except ModuleNotFoundError as error:
        raise missing_extra_error("hyperformer serve", error, "serve") from None
    logging.basicConfig(level=logging.INFO, format="%(levelname)s  %(message)s", stream=sys.stderr)
    names = [name.replace("-", "_") for name in SERVE_OPTIONS]
    settings = {name: vars(options)[name] for name in names if name in options}
    settings |= {"allow_unpublished": options.allow_unpublished, "provider": options.provider}
    run(ServerSettings(options.root, precision="int8" if options.int8 else "float32", **settings))
