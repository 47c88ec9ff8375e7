"""The check of the checkpoint that a transfer adapts."""

from __future__ import annotations

from pathlib import Path

from hyperformer.config import Settings
from hyperformer.training import load_trained_model
from hyperformer.types import HyperFormerError


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
    load_trained_model(settings.transfer).check(settings.evaluation)
