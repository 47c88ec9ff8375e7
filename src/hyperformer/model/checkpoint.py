"""The files of a checkpoint and its configuration; this module does not import PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from pydantic import ValidationError

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.core.files import is_damage
from hyperformer.settings import BackboneSettings, Methods, MethodSettings, Tasks, rename_settings

CONFIGURATION = "configuration.json"
"""File of a checkpoint's settings."""
WEIGHTS = "trained.safetensors"
"""File of a checkpoint's trained tensors, if it has a single model."""
CARD = "README.md"
"""File of a checkpoint's model card."""
TASK_EMBEDDING = "method.task_embedding.weight"
"""Name of the tensor of task embeddings [tasks, e], in methods that have them."""


@dataclass(frozen=True)
class TrainingRecord:
    """Steps, threads and passes of the training of a checkpoint.

    Attributes:
        steps: number of steps until the training ended, also if it stopped early; several models are summed.
        threads: number of CPU threads, which the bytes of the tensors depend on.
        passes: for each task, the number of passes over its training rows in these steps.
    """

    steps: int
    threads: int
    passes: Mapping[str, float]

    @classmethod
    def of(cls, steps: int, threads: int, passes: Mapping[str, float]) -> TrainingRecord:
        """Create a record with rounded passes."""
        return cls(steps, threads, {task: round(value, 4) for task, value in passes.items()})


@dataclass(frozen=True)
class Checkpoint:
    """A folder of trained tensors, and the settings that they were trained with.

    Attributes:
        name: the folder, or the name of the repository on the Hub.
        folder: the folder.
        backbone: settings of the backbone.
        backbone_sha256: checksum of the backbone that the tensors were trained on.
        method: name and settings of the method.
        tasks: settings of the tasks.
        groups: names of the tasks of each model.
        files: sha256 of each file of tensors; empty in checkpoints of version 0.1.
        training: the record of its training; None if the checkpoint has none.
    """

    name: str
    folder: Path
    backbone: BackboneSettings
    backbone_sha256: str
    method: MethodSettings
    tasks: Tasks
    groups: Sequence[Sequence[str]]
    files: Mapping[str, str]
    training: TrainingRecord | None = None

    def read_weights(self, group: Sequence[str]) -> bytes:
        """Read the file of a model's tensors once, and verify its checksum if the checkpoint has one.

        Raises:
            HyperFormerError: the file is missing, cannot be read, or is not the file that was saved.
        """
        path = self.folder / weights_name(self.groups, group)
        try:
            content = path.read_bytes()
        except OSError as error:
            if not is_damage(error):
                raise HyperFormerError(f"cannot read {path} ({error}). Check its permissions.") from None
            raise _not_a_checkpoint(self.folder, path.name) from None
        if self.files and hashlib.sha256(content).hexdigest() != self.files[path.name]:
            raise HyperFormerError(
                f"{path} is not the file that was saved with {CONFIGURATION} (its sha256 differs). Copy the whole "
                "checkpoint again, or train again."
            )
        return content


def weights_name(groups: Sequence[Sequence[str]], group: Sequence[str]) -> str:
    """Return the name of the file of a model's trained tensors."""
    return WEIGHTS if len(groups) == 1 else WEIGHTS.replace(".", f"-{'-'.join(group)}.")


def read_checkpoint(name: str | Path, revision: str | None = None, backbone: str | None = None) -> Checkpoint:
    """Read the configuration of a checkpoint; settings of version 0.1 are renamed.

    Args:
        name: a folder, or the name of a repository on the Hub.
        revision: branch, tag or commit on the Hub; None: the default branch. Ignored for a folder.
        backbone: path or Hub name of the backbone; None: the one that is stored in the checkpoint.

    Raises:
        HyperFormerError: `name` is not a checkpoint, or its configuration is damaged.
    """
    folder = Path(name) if Path(name).is_dir() else _download(str(name), revision)
    configuration = _read_configuration(folder)
    with _configuration_errors(folder):
        reference = configuration["backbone"]
        expected = reference.pop("sha256")
        settings = BackboneSettings(**(reference | ({"path": backbone, "revision": None} if backbone else {})))
        groups, files = configuration["groups"], {**configuration.get("files", {})}
        if files:
            files = {file: files[file] for file in (weights_name(groups, group) for group in groups)}
        return Checkpoint(
            name=str(name),
            folder=folder,
            backbone=settings,
            backbone_sha256=expected,
            method=Methods(configuration["methods"]).get_method(configuration["method"]),
            tasks=Tasks(configuration["tasks"]),
            groups=groups,
            files=files,
            training=TrainingRecord(**configuration["training"]) if configuration.get("training") else None,
        )


def write_configuration(checkpoint: Checkpoint) -> None:
    """Write the configuration into the checkpoint's folder."""
    configuration: dict[str, Any] = {
        "backbone": {**checkpoint.backbone.model_dump(), "sha256": checkpoint.backbone_sha256},
        "method": checkpoint.method.name,
        "methods": {checkpoint.method.name: checkpoint.method.settings.model_dump()},
        "tasks": checkpoint.tasks.model_dump(),
        "groups": checkpoint.groups,
        "files": checkpoint.files,
    }
    if checkpoint.training is not None:
        configuration["training"] = asdict(checkpoint.training)
    text = json.dumps(configuration, indent=2) + "\n"
    (checkpoint.folder / CONFIGURATION).write_text(text, encoding="utf-8")


def damaged_error(folder: Path, reason: object) -> HyperFormerError:
    """Return the error for a damaged checkpoint."""
    return HyperFormerError(f"checkpoint {folder} is damaged ({reason}). Train again, or use another checkpoint.")


def _download(name: str, revision: str | None) -> Path:
    """Download a checkpoint from the Hub, and return its folder in the Hub's cache."""
    try:
        patterns = ["*.json", "*.safetensors", "*.md"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise HyperFormerError(
            f"no checkpoint {name!r}: neither a folder nor a repository on the Hub or in its cache "
            f"({first_line(error)}). Train a model first, or use another name."
        ) from error


def _read_configuration(folder: Path) -> dict[str, Any]:
    try:
        configuration: dict[str, Any] = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    except OSError as error:
        if not is_damage(error):
            raise
        raise _not_a_checkpoint(folder, CONFIGURATION) from None
    except ValueError as error:
        raise damaged_error(folder, error) from None
    missing = [name for name in ("backbone", "method", "methods", "tasks", "groups") if name not in configuration]
    if missing:
        raise damaged_error(folder, f"{CONFIGURATION} has no {missing[0]!r}")
    return rename_settings(configuration)


@contextmanager
def _configuration_errors(folder: Path) -> Iterator[None]:
    """Turn errors in a checkpoint's configuration into an error that names the checkpoint."""
    try:
        yield
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise damaged_error(folder, f"{CONFIGURATION}: {message}") from None


def _not_a_checkpoint(folder: Path, missing: str) -> HyperFormerError:
    return HyperFormerError(
        f"{folder} is not a checkpoint (it has no {missing}). Train a model first, or use another folder."
    )
