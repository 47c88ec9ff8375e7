"""Count the parameters of a configuration."""

from __future__ import annotations

import torch

from hyperformer import backbones, methods, tasks
from hyperformer.model.multi_task import build_answer_heads
from hyperformer.settings import BackboneSettings, MethodSettings, Tasks


def count_parameters(backbone: BackboneSettings, method: MethodSettings, settings: Tasks) -> dict[str, float]:
    """Count the parameters of a configuration, without reading any weights.

    Args:
        backbone: settings of the backbone; only its configuration file is read.
        method: name and settings of the method.
        settings: settings of the tasks.

    Returns:
        `backbone`: parameters of the backbone. `added`: parameters of the method, summed over the models of all groups.
        `trained`: `added` plus the trained parameters of the backbone, summed in the same way. `total_ratio`: number of
        parameters that all tasks need together, divided by `backbone`. `trained_percent_per_task`: trained parameters
        per task, in percent of `backbone` (HyperFormer, table 1).
    """
    groups = methods.group_tasks(method, list(settings.root))
    architecture = backbones.load_without_weights(backbone)
    heads = build_answer_heads(architecture, tasks.make_tasks(settings))
    with torch.device("meta"):
        method_module = methods.make_method(
            method, groups[0], architecture.sites(), architecture.width, heads.rows if heads else 0
        )
    if not method_module.trains_backbone:
        architecture.freeze()
    size = sum(p.numel() for p in architecture.parameters())
    tuned = sum(p.numel() for p in architecture.parameters() if p.requires_grad)
    added = len(groups) * sum(p.numel() for p in method_module.parameters())
    trained = added + len(groups) * tuned
    return {
        "backbone": size,
        "added": added,
        "trained": trained,
        "total_ratio": (size - tuned + trained) / size,
        "trained_percent_per_task": 100.0 * trained / len(settings.root) / size,
    }
