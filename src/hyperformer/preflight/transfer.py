"""The check of the checkpoint that a transfer adapts."""

from __future__ import annotations

from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.model.multi_task import backbone_errors, check_label_scoring
from hyperformer.preflight.model import build_empty
from hyperformer.settings import Settings
from hyperformer.training.transfer import check_task_specific, read_trained_checkpoint


def check_transfer(settings: Settings, adapted: str | None) -> None:
    """Check that the trained checkpoint can be adapted, and that the adapted checkpoint does not overwrite it.

    Args:
        settings: All settings.
        adapted: Path of the adapted checkpoint.

    Raises:
        HyperFormerError: The trained checkpoint would be overwritten or cannot be loaded, or its method or backbone
            does not fit the settings.
    """
    trained = settings.transfer.checkpoint
    if Path(trained).resolve() == Path(str(adapted)).resolve():
        raise HyperFormerError(
            f"transfer.checkpoint is {trained!r}, which this run would overwrite with the adapted checkpoint. Use "
            "another environment, such as --env transfer, or another checkpoint."
        )
    checkpoint = read_trained_checkpoint(settings.transfer)
    group = checkpoint.groups[0]
    with backbone_errors(checkpoint):
        backbone, method = build_empty(checkpoint.backbone, checkpoint.method, checkpoint.tasks, group)
    checkpoint.read_weights(group)
    check_task_specific(settings.transfer, checkpoint.method.name, method)
    check_label_scoring(backbone, checkpoint.backbone, settings.evaluation)
