"""Settings of version 0.1 that have other names or values now."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "evaluation.beams": "evaluation.num_beams",
    "evaluation.closed_tasks": "evaluation.label_scoring",
    "methods.*.projector.hidden": "methods.*.projector.hidden_dim",
    "methods.*.projector.projected": "methods.*.projector.output_dim",
    "methods.*.start": "methods.*.adapter_init",
    "methods.*.task_embedding": "methods.*.task_embedding_dim",
    "pretraining.mean_span": "pretraining.mean_noise_span_length",
    "pretraining.text": "pretraining.text_file",
    "pretraining.vocabulary": "pretraining.vocab_size",
    "transfer.start": "transfer.initialize_from",
    "transfer.trains": "transfer.train",
}
"""Name of a setting in version 0.1 → its current name; `*` stands for the name of a method."""
RENAMED_VALUES = {
    "methods.*.adapter_init": {"authors": "paper"},
    "transfer.initialize_from": {"noise": "random"},
    "transfer.train": {"own": "task_specific"},
}
"""Current name of a setting → its value in version 0.1 → the current value."""


def rename_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """Replace the names and values of version 0.1 in a parameter tree by the current ones."""
    return _renamed(parameters, ())


def _renamed(tree: Any, path: tuple[int | str, ...]) -> Any:
    if not isinstance(tree, dict):
        return RENAMED_VALUES.get(generic_name(path), {}).get(tree, tree) if isinstance(tree, str) else tree
    renamed = {}
    for name, value in tree.items():
        new = new_name((*path, name))
        current = new.rpartition(".")[2] if new else name
        renamed[current] = _renamed(value, (*path, current))
    return renamed


def new_name(path: tuple[int | str, ...]) -> str | None:
    """Return the current dotted name of a setting of version 0.1; None if the setting was not renamed."""
    return RENAMED.get(generic_name(path))


def generic_name(path: tuple[int | str, ...]) -> str:
    """Return the dotted name of a setting, with `*` in place of a method's name."""
    names = list(map(str, path))
    if len(names) > 2 and names[0] == "methods":
        names[1] = "*"
    return ".".join(names)
