"""Training methods, which provide the trainable weights of a model.

A new method needs a module here, an entry in `METHODS`, and a field for its settings in `config.Methods`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.core.types import Site
from hyperformer.methods.adapters_multi_task import AdaptersMultiTask
from hyperformer.methods.adapters_per_task import AdaptersPerTask
from hyperformer.methods.base import Method
from hyperformer.methods.fine_tuning_multi_task import FineTuningMultiTask
from hyperformer.methods.fine_tuning_per_task import FineTuningPerTask
from hyperformer.methods.hyperformer import HyperFormer
from hyperformer.methods.hyperformer_plus_plus import HyperFormerPlusPlus
from hyperformer.settings import MethodSettings

METHODS: dict[str, type[Method]] = {
    "hyperformer_plus_plus": HyperFormerPlusPlus,
    "hyperformer": HyperFormer,
    "adapters_multi_task": AdaptersMultiTask,
    "adapters_per_task": AdaptersPerTask,
    "fine_tuning_multi_task": FineTuningMultiTask,
    "fine_tuning_per_task": FineTuningPerTask,
}


def group_tasks(method: MethodSettings, tasks: Sequence[str]) -> list[list[str]]:
    """Return the groups of tasks that share one model; a method trains one model per group."""
    return METHODS[method.name].group_tasks(tasks)


def make_method(
    method: MethodSettings, tasks: Sequence[str], sites: Sequence[Site], width: int, head_rows: int = 0
) -> Method:
    """Create a method for the tasks of one group.

    Args:
        method: name and settings of the method.
        tasks: names of the group's tasks; a task's id is its index.
        sites: the backbone's adapter sites.
        width: the backbone's hidden size d.
        head_rows: number k of outputs of each task's head; 0 if the backbone needs no heads.

    Raises:
        HyperFormerError: the reduction factor does not divide the width, or the settings select no adapter site.
    """
    return METHODS[method.name](method.settings, tasks, sites, width, head_rows)


__all__ = ["METHODS", "Method", "group_tasks", "make_method"]
