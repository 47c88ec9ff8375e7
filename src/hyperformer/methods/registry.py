"""Registration of methods by name; importing it, and the settings of a method, does not import PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperformer.core.types import Site
from hyperformer.settings import MethodSettings, SettingsModel
from hyperformer.settings.methods import METHOD_SETTINGS

if TYPE_CHECKING:
    from hyperformer.methods.base import Method


@dataclass(frozen=True)
class MethodType:
    """A registered method.

    Attributes:
        display_name: name in tables and charts.
        model: the class of its weights, as `module:Class`; the module is imported when the method is first used.
        per_task: whether the method trains a separate model for each task.
    """

    display_name: str
    model: str
    per_task: bool = False

    def load(self) -> type[Method]:
        """Import and return the class of the method's weights."""
        module, _, name = self.model.partition(":")
        loaded: type[Method] = getattr(importlib.import_module(module), name)
        return loaded


METHODS: dict[str, MethodType] = {}
"""The registered methods by name."""


def register_method(
    name: str, display_name: str, settings: type[SettingsModel], model: str, per_task: bool = False
) -> None:
    """Register a method, so that a block of this name in `methods` configures it.

    Args:
        name: name of the method in settings and checkpoints.
        display_name: name in tables and charts.
        settings: class of its settings; its module must not import PyTorch.
        model: its subclass of `Method`, as `module:Class`.
        per_task: whether the method trains a separate model for each task.

    Raises:
        ValueError: another method has this name.
    """
    method = MethodType(display_name, model, per_task)
    if METHODS.get(name, method) != method:
        raise ValueError(f"the method {name!r} is registered already; choose another name")
    METHOD_SETTINGS.register(name, settings)
    METHODS[name] = method


def group_tasks(method: MethodSettings, tasks: Sequence[str]) -> list[list[str]]:
    """Return the groups of tasks that share one model; a method trains one model per group."""
    return [[task] for task in tasks] if METHODS[method.name].per_task else [list(tasks)]


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
    return METHODS[method.name].load()(method.settings, tasks, sites, width, head_rows)
