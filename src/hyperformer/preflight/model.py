"""The check of backbone, method and tasks, which loads no weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hyperformer import backbones, methods
from hyperformer.backbones import Backbone
from hyperformer.methods.base import Method
from hyperformer.model.multi_task import build_answer_heads, check_label_scoring, encode_answers
from hyperformer.settings import BackboneSettings, MethodSettings, RunSettings, Tasks
from hyperformer.tasks import make_tasks


def check_model(settings: RunSettings) -> None:
    """Check that a model can be constructed and evaluated with the settings.

    Raises:
        HyperFormerError: The backbone cannot be loaded, or the method, a task or `evaluation` does not fit it.
    """
    tasks, method = settings.tasks, settings.chosen_method
    group = methods.group_tasks(method, list(tasks.root))[0]
    backbone, _ = build_empty(settings.backbone, method, tasks, group)
    check_label_scoring(backbone, settings.backbone, settings.evaluation)


def build_empty(
    settings: BackboneSettings, method: MethodSettings, tasks: Tasks, group: Sequence[str]
) -> tuple[Backbone, Method]:
    """Build the backbone and the method of a group of tasks on the meta device, and encode the tasks' answers.

    Raises:
        HyperFormerError: The backbone cannot be loaded, or the method or a task does not fit it.
    """
    backbone, by_name = backbones.load(settings, empty=True), make_tasks(tasks)
    heads = build_answer_heads(backbone, by_name)
    with torch.device("meta"):
        weights = methods.make_method(method, group, backbone.sites(), backbone.width, heads.rows if heads else 0)
    encode_answers(backbone, settings, by_name)
    return backbone, weights
