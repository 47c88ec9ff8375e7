"""The commands `inspect`, `verify`, `triton` and `strings`, which work on the files of exported tasks."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperformer.cli.arguments import add_unpublished_option, check_rows, load_bundle, missing_extra_error
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.markdown import format_template
from hyperformer.runtime.files import read_base, read_bundle, read_valid_manifest
from hyperformer.runtime.router import find_bundles
from hyperformer.serving.triton import write_repository

MEGABYTE = 1e6
"""Number of bytes in a megabyte."""


def _find_bundles(options: argparse.Namespace) -> list[Path]:
    """Return the bundles in the folder, or the folder itself if it is a bundle or has no bundles."""
    folder = Path(options.bundle)
    bundles = find_bundles(folder)
    return [folder] if (folder / manifest.MANIFEST).exists() or not bundles else bundles


def _inspect(options: argparse.Namespace) -> None:
    base = Path(options.bundle)
    if (base / manifest.BASE).is_file():
        files = read_base(base)[0].files
        print(f"shared base of all tasks\n  {'files':12s}  {_format_files(base, files)}")
    for folder in _find_bundles(options):
        description = read_valid_manifest(folder)
        missing = [name for name in description.files if not (folder / name).is_file()]
        lines = {
            "kind": description.kind,
            "text": format_template(description.text),
            "answers": ", ".join(map(_format_label, description.labels)) or "any text",
            "longest text": f"{description.max_source_tokens} tokens",
            "backbone": description.backbone,
            "method": description.method,
            "metrics": _format_metrics(description.metrics),
            "baselines": _format_metrics(description.baselines),
            "published": "yes" if description.published else "no, because it is no better than the majority baseline",
            "parity": _format_numbers(description.parity),
            "int8": _format_numbers(description.int8),
            "OpenVINO": _format_numbers(description.openvino),
            "files": _format_files(folder, description.files),
            **({"missing": ", ".join(missing)} if missing else {}),
        }
        print(description.task)
        for name, value in lines.items():
            print(f"  {name:12s}  {value}")


def _format_numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items()) or "not compared"


def _format_metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())


def _format_label(label: str) -> str:
    """Return a label, in quotes if it has a comma, a quote or an invisible character."""
    return label if label.isprintable() and not set(",'\"") & set(label) else repr(label)


def _format_files(folder: Path, files: Iterable[str]) -> str:
    """Return the names of files and the total size of those that exist."""
    size = 0
    for name in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            size += (folder / name).stat().st_size
    return f"{', '.join(files)} ({size / MEGABYTE:.1f} MB)"


def _verify(options: argparse.Namespace) -> None:
    errors = []
    base = Path(options.bundle)
    if (base / manifest.BASE).is_file():
        try:
            print(f"base: {len(read_base(base)[0].files)} files match their checksums")
        except HyperFormerError as error:
            errors.append(str(error))
    for folder in _find_bundles(options):
        try:
            bundle, _ = read_bundle(folder, allow_unpublished=True)
            unlisted = manifest.unlisted_files(folder, bundle)
            if unlisted:
                raise HyperFormerError(
                    f"{folder} contains {', '.join(unlisted)}, which its manifest does not list. Remove unlisted files."
                )
            note = "" if bundle.published else ", not published"
            print(f"{bundle.task}: {len(bundle.files)} files match their checksums{note}")
        except HyperFormerError as error:
            errors.append(str(error))
    if errors:
        raise HyperFormerError("; ".join(error.rstrip(".") for error in errors))


def _triton(options: argparse.Namespace) -> None:
    names = write_repository(_find_bundles(options), options.repository, options.int8, options.allow_unpublished)
    print(f"{options.repository}: {len(names)} models, {', '.join(names)}")


def _strings(options: argparse.Namespace) -> None:
    try:
        from hyperformer.serving.string_graph import write_string_graph
    except ImportError as error:
        raise missing_extra_error("hyperformer strings", error, "strings") from None
    if options.graph.suffix != ".onnx" or not options.graph.parent.is_dir():
        raise HyperFormerError(
            f"cannot write {options.graph}; expected a file name that ends in .onnx, in an existing folder"
        )
    rows = check_rows(load_bundle(options), options.rows)
    bundle = Path(options.bundle)
    written = write_string_graph(bundle, options.graph, rows, options.int8, options.allow_unpublished)
    print(
        f"{options.graph}: {', '.join(written.inputs)} -> {', '.join(written.outputs)}; tokens and answers match the "
        f"bundle's on {written.rows} rows"
    )


def add_bundle_commands(commands: Any) -> None:
    """Add the commands `inspect`, `verify` and `triton` to the parsers of all commands."""
    for name, run, description in (
        ("inspect", _inspect, "describe an exported task, or each task of a folder"),
        ("verify", _verify, "compare the files of exported tasks with their checksums"),
    ):
        command = commands.add_parser(name, help=description)
        command.add_argument("bundle", help="folder of an exported task, or of several tasks")
        command.set_defaults(run=run)
    triton = commands.add_parser("triton", help="write a model repository for Triton Inference Server")
    triton.add_argument("bundle", help="folder of an exported task, or of several tasks")
    triton.add_argument("repository", type=Path, help="folder to write; it must be empty or not exist")
    triton.add_argument("--int8", action="store_true", help="use the int8 graphs")
    add_unpublished_option(triton)
    triton.set_defaults(run=_triton)


def add_strings_command(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command `strings`."""
    command.add_argument("bundle", help="folder of an exported task")
    command.add_argument("graph", type=Path, help="file to write; its name must end in .onnx")
    command.add_argument(
        "rows",
        nargs="*",
        help="rows on which the graph's answers are compared with the task's, in the formats of predict",
    )
    command.add_argument("--int8", action="store_true", help="use the int8 graph")
    add_unpublished_option(command)
    command.set_defaults(run=_strings)
