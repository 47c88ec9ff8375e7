"""Methods: how trainable weights arise. A new method is one file here and one line in `METHODS`."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.config import MethodSettings
from hyperformer.methods.adapters import MultiTaskAdapters
from hyperformer.methods.base import Method
from hyperformer.methods.fine_tuning import FineTuning
from hyperformer.methods.hyperformer import HyperFormer
from hyperformer.methods.hyperformer_plus_plus import HyperFormerPlusPlus
from hyperformer.types import Site

METHODS: dict[str, type[Method]] = {
    "hyperformer++": HyperFormerPlusPlus,
    "hyperformer": HyperFormer,
    "adapters-multitask": MultiTaskAdapters,
    "fine-tuning": FineTuning,
}


def make(settings: MethodSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> Method:
    """The method that the configuration names, for these tasks and these places of a backbone of this width.

    Raises:
        HyperFormerError: the reduction factor leaves no whole bottleneck.
    """
    return METHODS[settings.root.name](settings.root, tasks, sites, width)


__all__ = ["METHODS", "Method", "make"]
