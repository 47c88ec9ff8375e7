"""How trainable weights arise. A new method is one file here and one line in `METHODS`."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.config import MethodSettings
from hyperformer.methods.base import Method
from hyperformer.methods.hyperformer import HyperFormerPlusPlus
from hyperformer.types import Site

METHODS: dict[str, type[Method]] = {"hyperformer++": HyperFormerPlusPlus}


def make(settings: MethodSettings, tasks: Sequence[str], sites: Sequence[Site], width: int) -> Method:
    """The method that the configuration names, for these tasks and these places of a backbone of this width."""
    return METHODS[settings.name](settings, tasks, sites, width)


__all__ = ["METHODS", "Method", "make"]
