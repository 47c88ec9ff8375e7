"""Merging of settings from several layers, such as defaults, files and the command line, with the origin of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hyperformer.settings.presets import LIBRARY, PRESETS, WARMUP_RATIO, choose_preset

Layer = Mapping[str, Mapping[str, Any]]
"""Parameter trees by the name of their source, such as a file; no two of them set the same key."""
Origins = dict[Any, Any]
"""The name of the source of each setting, in the form of the parameter tree."""

Resolve = Callable[[dict[str, Any]], Mapping[str, Any]]
"""A function that resolves references to other settings."""

REPLACED = {
    "epochs": ("steps", "evaluate_every", "warmup_steps"),
    "steps": ("epochs",),
    "batch_size": ("batch_tokens",),
    "batch_tokens": ("batch_size",),
    "warmup_steps": ("warmup_ratio",),
    "warmup_ratio": ("warmup_steps",),
}
"""Settings of `training` that exclude each other: a setting of a later layer removes these of earlier layers."""
REPLACED_BY = {("epochs", "warmup_steps"): {"warmup_ratio": WARMUP_RATIO}}
"""Settings that replace a removed one."""
NOT_INHERITED = ("tasks", "preset", "export.label_names", "export.allow_below_majority")
"""Settings of base that other environments do not inherit: the tasks, the preset, and what names tasks."""


def merge_layers(layers: Iterable[Layer]) -> tuple[dict[str, Any], Origins]:
    """Merge layers of settings key by key; a later layer replaces the values of earlier ones.

    Returns:
        The parameter tree, and the source of each of its settings.
    """
    tree: dict[str, Any] = {}
    origins: Origins = {}
    for layer in layers:
        values: dict[str, Any] = {}
        sources: Origins = {}
        for source, settings in layer.items():
            _merge(values, sources, settings, _label(settings, source))
        _remove_excluded(tree, origins, values, sources)
        _merge(tree, origins, values, sources)
    return tree, origins


def merge_settings(
    before: Sequence[Layer], after: Sequence[Layer], resolve: Resolve = lambda tree: tree
) -> tuple[dict[str, Any], Origins]:
    """Merge the defaults of the library, `before`, the preset and `after`, in this order.

    Args:
        before: layers whose values the preset replaces.
        after: layers that replace values of the preset.
        resolve: returns a parameter tree whose settings of the backbone have no references to other settings.

    Returns:
        The parameter tree, which has the chosen `preset`, and the source of each setting.

    Raises:
        ConfigurationError: the preset is unknown, or the configuration of the backbone cannot be read.
    """
    library: Layer = {"library": LIBRARY}
    preset = choose_preset(resolve(merge_layers([library, *before, *after])[0]))
    defaults: Layer = {f"preset {preset}": PRESETS[preset]} if preset else {}
    tree, origins = merge_layers([library, *before, defaults, *after])
    if preset and tree.get("preset") is None:
        tree["preset"], origins["preset"] = preset, "model_type of the backbone"
    return tree, origins


def leave_out(layer: Layer, names: Collection[str]) -> Layer:
    """Return a layer without the settings whose dotted names are in `names`."""
    return {source: _leave_out(settings, names) for source, settings in layer.items()}


def _leave_out(tree: Mapping[Any, Any], names: Collection[str], path: str = "") -> dict[Any, Any]:
    return {
        key: _leave_out(value, names, f"{path}{key}.") if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if f"{path}{key}" not in names
    }


def list_values(tree: Mapping[Any, Any], origins: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield the dotted name, the value and the source of each setting; a default of a settings class has no source."""
    for key, value in tree.items():
        name = f"{path}.{key}" if path else str(key)
        source = origins.get(key) if isinstance(origins, Mapping) else origins
        if isinstance(value, Mapping) and value:
            yield from list_values(value, {} if source is None else source, name)
        else:
            yield name, value, source if isinstance(source, str) else "library"


def _remove_excluded(tree: dict[str, Any], origins: Origins, values: Mapping[str, Any], sources: Origins) -> None:
    """Remove the settings of `training` that the values of the next layer exclude; its source is then theirs."""
    inherited, chosen = tree.get("training"), values.get("training")
    if not isinstance(inherited, dict) or not isinstance(chosen, Mapping):
        return
    for name, value in chosen.items():
        for other in REPLACED.get(name, ()):
            if value is not None and other not in chosen and inherited.pop(other, None) is not None:
                added = REPLACED_BY.get((name, other), {})
                inherited.update(added)
                origins["training"] |= dict.fromkeys([other, *added], sources["training"][name])


def _merge(tree: dict[Any, Any], origins: Origins, values: Mapping[Any, Any], sources: Origins) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            if not isinstance(origins.get(key), dict):
                origins[key] = {}
            _merge(tree[key], origins[key], value, sources[key] if value else {})
        else:
            tree[key], origins[key] = copy.deepcopy(value), copy.deepcopy(sources[key])


def _label(tree: Mapping[Any, Any], source: str) -> Origins:
    """Return a tree of the same form with the name of its source at each setting."""
    return {
        key: _label(value, source) if isinstance(value, Mapping) and value else source for key, value in tree.items()
    }
