"""Write the models of a checkpoint to a folder or to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from safetensors.torch import save_file

from hyperformer import backbones
from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.core.files import sha256
from hyperformer.model.checkpoint import CARD, Checkpoint, TrainingRecord, weights_name, write_configuration
from hyperformer.model.model_card import render_card
from hyperformer.model.tensors import trained_tensors

if TYPE_CHECKING:
    from hyperformer.model.multi_task import MultiTaskModel


def save(models: Sequence[MultiTaskModel], folder: Path, record: TrainingRecord | None = None) -> None:
    """Write the trained tensors of models with the same settings, their configuration and the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    first, groups = models[0], [model.group for model in models]
    files = {}
    for model in models:
        name = weights_name(groups, model.group)
        save_file(trained_tensors(model), folder / name)
        files[name] = sha256(folder / name)
    checkpoint = Checkpoint(
        name=str(folder),
        folder=folder,
        backbone=first.backbone_settings,
        backbone_sha256=backbones.compute_checksum(first.backbone_settings),
        method=first.method_settings,
        tasks=first.task_settings,
        groups=groups,
        files=files,
        training=record,
    )
    write_configuration(checkpoint)
    card = render_card(first.backbone_settings, first.method_settings.name, first.tasks, len(groups), record)
    (folder / CARD).write_text(card, encoding="utf-8")


def push(
    models: Sequence[MultiTaskModel], repository: str, private: bool | None, record: TrainingRecord | None = None
) -> None:
    """Upload the files that `save` writes; see `MultiTaskModel.push_to_hub`."""
    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save(models, Path(folder), record)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder)
        except (OSError, HFValidationError) as error:
            raise HyperFormerError(
                f"cannot upload to the Hub repository {repository!r} ({first_line(error)}). Log in with `hf auth "
                "login`, and use a repository of your account, as user/name."
            ) from error
