"""The check of backbone, method and tasks."""

from __future__ import annotations

from hyperformer.config import Settings
from hyperformer.model import MultiTaskModel


def check_model(settings: Settings) -> None:
    """Check that a model can be constructed and evaluated with the settings.

    Raises:
        HyperFormerError: The backbone cannot be loaded, or the method, a task or `evaluation` does not fit it.
    """
    MultiTaskModel(settings.backbone, settings.chosen_method, settings.tasks).check(settings.evaluation)
