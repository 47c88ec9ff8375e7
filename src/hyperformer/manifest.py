"""What a bundle says of itself: how to ask it, what is in it, and how it was checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hyperformer.types import HyperFormerError, Source

FORMAT = 3
FILE = "manifest.json"
GRAPH, INT8, TOKENIZER, GENERATION, CARD = "model.onnx", "model.int8.onnx", "tokenizer.json", "generation", "README.md"
ADAPTER = "task.onnx_adapter"
"""What else a bundle's folder may hold."""
BASE, BASE_FORMAT = "base.json", 1
"""What a folder whose bundles share a base says of it."""


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest.

    `text` is the template of a row's source, one or two; `files` holds the sha256 of every other file by its path in
    the folder; `made_from` the hashes of code, data and parameters; `numbers` is None where answers are none; `labels`
    is empty where any text may be the answer; `int8` says how the graph fares in int8, in percent, and is empty where
    there is none.
    """

    format: int
    task: str
    kind: str
    text: Source
    labels: list[str]
    numbers: list[float] | None
    max_source_tokens: int
    opset: int
    backbone: str
    method: str
    files: dict[str, str]
    parity: dict[str, float]
    int8: dict[str, float]
    metrics: dict[str, float]
    made_from: dict[str, str]

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Base:
    """What bundles share: `files` holds the sha256 of graph and tokenizer by name."""

    format: int
    backbone: str
    method: str
    max_source_tokens: int
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        (folder / BASE).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("task", "kind", "backbone", "method"), str),
    "text": (str, list),
    **dict.fromkeys(("max_source_tokens", "opset"), int),
    **dict.fromkeys(("files", "parity", "int8", "metrics", "made_from"), dict),
    "labels": list,
    "numbers": (list, type(None)),
}
"""What JSON has for each field."""


def read(folder: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        HyperFormerError: there is none, it cannot be read, or its format is newer than this version knows.
    """
    found = _read(folder, FILE, Manifest, FORMAT)
    if isinstance(found["text"], list):
        found["text"] = tuple(found["text"])
    return Manifest(**found)


def read_base(folder: Path) -> Base:
    """What a folder says of the base that its bundles share; raises as `read` does."""
    return Base(**_read(folder, BASE, Base, BASE_FORMAT))


def _read(folder: Path, name: str, kind: type[Manifest | Base], expected: int) -> dict[str, Any]:
    """The fields of a JSON file, each of the kind that it should be."""
    path = folder / name
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HyperFormerError(f"{folder} holds no {name}; give the folder of an exported task") from None
    except ValueError as error:
        raise HyperFormerError(f"{path} is not valid JSON ({error}); export the task again") from None
    if not isinstance(found, dict) or found.get("format") != expected:
        got = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise HyperFormerError(
            f"{path} has format {got!r}, expected {expected}; use the version of hyperformer that made it"
        )
    names = {field.name for field in fields(kind)}
    odd = sorted(set(found) ^ names)
    if odd:
        raise HyperFormerError(f"{path} lacks or adds {', '.join(odd)}; export the task again")
    wrong = sorted(name for name in names - {"format"} if not isinstance(found[name], KINDS[name]))
    if wrong:
        got = type(found[wrong[0]]).__name__
        raise HyperFormerError(f"{path} has a {got} as {wrong[0]!r}; export the task again")
    return found


def verify(folder: Path, files: Mapping[str, str], wanted: Collection[str] = ()) -> dict[str, bytes]:
    """Compare the files of a bundle, or of a base, with their checksums, and return those that are wanted.

    Each file is read once, so that the bytes that are returned are the ones that were compared.

    Args:
        files: the sha256 of each by its path in the folder.
        wanted: the names of listed files whose bytes are returned.
    Returns:
        The bytes of the wanted files by name.
    Raises:
        HyperFormerError: one lies outside of the folder, is missing, or has other bytes.
    """
    contents = {}
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise HyperFormerError(
                f"the bundle {folder} names {name!r}, which leaves the folder; do not use this bundle"
            )
        path = folder / name
        if not path.is_file():
            raise HyperFormerError(f"the bundle {folder} lacks {name}; copy the whole folder")
        if name in wanted:
            contents[name] = path.read_bytes()
            got = hashlib.sha256(contents[name]).hexdigest()
        else:
            got = sha256(path)
        if got != expected:
            raise HyperFormerError(
                f"{path} is not the file that was exported (its sha256 differs); export or copy it again"
            )
    return contents


def foreign(folder: Path, described: Manifest) -> list[str]:
    """The files of a bundle's folder that its manifest does not list; no bundle opens them."""
    listed = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name for name in listed if name != FILE and name not in described.files]


def sha256(path: Path) -> str:
    """The checksum of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def folder_sha256(folder: Path) -> str:
    """One checksum over the names and bytes of all files below a folder, or over a single file."""
    if not folder.is_dir():
        return sha256(folder)
    listed = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return _listed_sha256({path.relative_to(folder).as_posix(): path for path in listed})


def files_sha256(files: Iterable[Path]) -> str:
    """One checksum over the names and bytes of these files, whatever folder they are in."""
    return _listed_sha256({path.name: path for path in files})


def _listed_sha256(files: Mapping[str, Path]) -> str:
    lines = "".join(f"{name} {sha256(path)}\n" for name, path in files.items())
    return hashlib.sha256(lines.encode()).hexdigest()
