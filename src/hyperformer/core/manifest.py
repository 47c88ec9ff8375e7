"""Manifest of a bundle: its inputs and answers, the checksums of its files, and the results of its checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.types import Source

FORMAT = 7
"""Version of the manifest's format."""
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
INT8 = "model.int8.onnx"
TOKENIZER = "tokenizer.json"
GENERATION = "generation"
"""Folder of the graphs of a generative task."""
MODEL_CARD = "README.md"
"""Model card."""
ADAPTER = "task.onnx_adapter"
"""Adapter weights of a task whose graph is in a shared base."""
BASE = "base.json"
"""Description of the base that the bundles of a folder share."""
BASE_FORMAT = 1
"""Version of the format of `BASE`."""


@dataclass(frozen=True)
class Manifest:
    """Manifest of a bundle.

    Attributes:
        format: Version of the format, `FORMAT`.
        task: Name of the task.
        kind: `classification`, `regression` or `generation`.
        text: Template of a row's source, a string or a pair of strings.
        missing: `empty` if a value that is null or missing is an empty text; None if it is an error.
        labels: Answer texts of the task; empty for generative tasks.
        numbers: Numeric value of each answer of a regression task; None for other tasks.
        max_source_tokens: Maximum number of tokens of a source.
        opset: ONNX opset version of the graphs.
        backbone: Path or Hub name of the backbone.
        method: Name of the method.
        files: sha256 of every file of the bundle except the manifest, by its path in the folder.
        parity: Result of the comparison with PyTorch.
        int8: `metric` and `float32`, the validation metrics of the int8 and the float32 graph, in percent, and
            `published`, 1 if the int8 graph was published and 0 if not. Empty if no int8 graph was created.
        openvino: `metric` and `float32`, the validation metrics of the graph with OpenVINO and with onnxruntime, in
            percent; `rows`, the number of validation rows; `changed`, how many of them have another label, except
            those whose two most probable labels are nearly equally likely (`ties`); `bf16`, 1 if OpenVINO computed in
            bf16 and 0 if in float32; and `published`, 1 if OpenVINO may run the graph and 0 if not. Empty if
            `export.openvino` is false.
        metrics: Test metrics of the task, as returned by `evaluation.compute_metrics`.
        baselines: Mean test metric of each baseline, in percent.
        published: False if the model is no better than the majority baseline on validation and
            `export.allow_below_majority` does not list the task. The runtime loads such a bundle only if asked to.
        made_from: Hashes of the inputs of the export, such as code, parameters, checkpoint and data.
        example: Texts of a validation row by column, which the page of the server shows; empty if `export.examples` is
            false.
    """

    format: int
    task: str
    kind: str
    text: Source
    missing: Literal["empty"] | None
    labels: list[str]
    numbers: list[float] | None
    max_source_tokens: int
    opset: int
    backbone: str
    method: str
    files: dict[str, str]
    parity: dict[str, float]
    int8: dict[str, float]
    openvino: dict[str, float]
    metrics: dict[str, float]
    baselines: dict[str, float]
    published: bool
    made_from: dict[str, str]
    example: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest into a bundle's folder."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Base:
    """Base that several bundles share; `files` has the sha256 of its graph and tokenizer, by file name."""

    format: int
    backbone: str
    method: str
    max_source_tokens: int
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write the description into the folder of the bundles."""
        (folder / BASE).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("task", "kind", "backbone", "method"), str),
    "text": (str, list),
    **dict.fromkeys(("max_source_tokens", "opset"), int),
    **dict.fromkeys(("files", "parity", "int8", "openvino", "metrics", "baselines", "made_from", "example"), dict),
    "labels": list,
    "published": bool,
    "numbers": (list, type(None)),
    "missing": (str, type(None)),
}
"""JSON type of each field except `format`."""


def read(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        HyperFormerError: The manifest is missing, is not valid JSON, has an unsupported format, or has invalid fields.
    """
    values = _read(folder, MANIFEST, Manifest, FORMAT)
    if isinstance(values["text"], list):
        values["text"] = tuple(values["text"])
    return Manifest(**values)


def read_base(folder: Path) -> Base:
    """Read the description of the base that the bundles of a folder share; see `read` for its errors."""
    return Base(**_read(folder, BASE, Base, BASE_FORMAT))


def _read(folder: Path, name: str, schema: type[Manifest | Base], expected: int) -> dict[str, Any]:
    """Read the fields of a JSON file and check their types."""
    path = folder / name
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = f"has no {name}" if folder.is_dir() else "does not exist"
        raise HyperFormerError(f"{folder} {state}; use the folder of an exported task") from None
    except ValueError as error:
        raise HyperFormerError(f"{path} is not valid JSON ({error}); export the task again") from None
    if not isinstance(values, dict) or values.get("format") != expected:
        got = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise HyperFormerError(
            f"{path} has format {got!r}, expected {expected}. Export the task again, or use the version of "
            "hyperformer that exported it"
        )
    names = {member.name for member in fields(schema)}
    unexpected = sorted(set(values) ^ names)
    if unexpected:
        raise HyperFormerError(f"{path} has missing or unknown fields: {', '.join(unexpected)}; export the task again")
    invalid = sorted(name for name in names - {"format"} if not isinstance(values[name], _FIELD_TYPES[name]))
    if invalid:
        got = type(values[invalid[0]]).__name__
        raise HyperFormerError(f"{path}: invalid type for {invalid[0]!r}: {got}; export the task again")
    return values


def verify(folder: Path, files: Mapping[str, str], wanted: Collection[str] = ()) -> dict[str, bytes]:
    """Compare the files of a bundle or base with their checksums, and return the bytes of the wanted files.

    Each file is read once, so that the returned bytes are the ones that were checked.

    Args:
        folder: Folder of the bundle or base.
        files: sha256 of each file by its path in the folder.
        wanted: Paths in the folder of the files whose bytes are returned.

    Returns:
        Bytes of the wanted files by path.

    Raises:
        HyperFormerError: A file is outside the folder, is missing, or does not match its checksum.
    """
    contents = {}
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise HyperFormerError(
                f"the bundle {folder} lists {name!r}, which is outside its folder; do not use this bundle"
            )
        path = folder / name
        if not path.is_file():
            raise HyperFormerError(f"the bundle {folder} has no {name}; copy the whole folder")
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


def unlisted_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files in a bundle's folder that its manifest does not list; the runtime never opens them."""
    listed = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name for name in listed if name != MANIFEST and name not in manifest.files]
