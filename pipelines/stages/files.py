"""Write the dvc.yaml files of an environment, and refuse to run stages that are out of date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import write_text
from pipelines.stages.build import build_files, list_files

HEADER = "# Written by `kedro dvc --env {env}`. Do not edit; run the command again when a run asks for it.\n"


def write_stages(env: str) -> list[Path]:
    """Write the dvc.yaml files of an environment, and return their paths.

    Raises:
        HyperFormerError: The settings are invalid, or an input would be missing in a clone.
    """
    files = build_files(env)
    for file, content in files.items():
        file.parent.mkdir(exist_ok=True)
        write_text(file, HEADER.format(env=env) + yaml.safe_dump(content, sort_keys=False, width=1000))
    return list(files)


def check_stages(env: str) -> None:
    """Check that the dvc.yaml files of an environment, if there are any, are those that `write_stages` would write.

    Raises:
        HyperFormerError: A file differs, or the stages cannot be built.
    """
    if not any(file.exists() for file in list_files(env)):
        return
    for file, content in build_files(env).items():
        written = yaml.safe_load(file.read_bytes()) or {} if file.exists() else content
        difference = next(_compare(written, content), None)
        if difference:
            raise HyperFormerError(
                f"{file} is out of date ({difference}); expected the stages of the current settings and code. Run "
                f"kedro dvc --env {env}."
            )


def _compare(actual: Any, right: Any, where: str = "") -> Iterator[str]:
    """Yield a description of each difference between two contents of a dvc.yaml."""
    at = f"{where}: " if where else ""
    if isinstance(actual, Mapping) and isinstance(right, Mapping):
        yield from (f"{at}it lacks {key}" for key in right if key not in actual)
        yield from (f"{at}it has {key}" for key in actual if key not in right)
        for key in right:
            yield from _compare(actual[key], right[key], f"{where}.{key}" if where else str(key))
    elif isinstance(actual, list) and isinstance(right, list):
        yield from (f"{at}it lacks {_name(entry)}" for entry in right if entry not in actual)
        yield from (f"{at}it has {_name(entry)}" for entry in actual if entry not in right)
    elif actual != right:
        yield f"{at}{actual!r} instead of {right!r}"


def _name(entry: Any) -> str:
    return str(next(iter(entry))) if isinstance(entry, Mapping) else str(entry)
