"""Default settings of the library, and presets: the defaults that depend on the kind of backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from hyperformer.core.errors import first_line
from hyperformer.settings.base import ConfigurationError

Preset = Literal["encoder", "t5"]
"""Name of a preset."""
T5_MODEL_TYPES = ("t5", "mt5", "umt5")
"""Values of transformers' `model_type` with the preset `t5`; all others have the preset `encoder`."""
HYPERNETWORK_METHODS = ("hyperformer_plus_plus", "hyperformer")
ADAPTER_METHODS = (*HYPERNETWORK_METHODS, "adapters_multi_task", "adapters_per_task", "shared_adapter")

LIBRARY: Mapping[str, Any] = {
    "seed": 0,
    "threads": None,
    "data": {"source": "embedded"},
    "method": "hyperformer_plus_plus",
    "methods": {
        **{
            name: {"task_embedding_dim": 64, "projector": {"hidden_dim": 128, "output_dim": 64}}
            for name in HYPERNETWORK_METHODS
        },
        "adapters_multi_task": {},
        "adapters_per_task": {},
        "shared_adapter": {},
        "fine_tuning_multi_task": {},
        "fine_tuning_per_task": {},
    },
    "training": {"temperature": 10},
    "evaluation": {"batch_size": 64},
    "export": {"opset": 18, "tolerance": 1e-4},
}
"""Settings of every backbone; base, the preset, the environment and `--params` replace them key by key."""
WARMUP_RATIO = 0.1
"""Warm-up of a run whose length is set in epochs, as a fraction of its steps."""
BUDGET = {
    "epochs": 10,
    "min_passes": 3,
    "patience": 3,
    "batch_size": 32,
    "warmup_ratio": WARMUP_RATIO,
    "label_smoothing": 0.0,
    "learning_rate": 3e-4,
    "validation_rows": 500,
}


def _make_preset(adapter_init: str, max_target_tokens: int | None) -> dict[str, Any]:
    return {
        "backbone": {"max_source_tokens": 128, "max_target_tokens": max_target_tokens},
        "methods": {name: {"reduction_factor": 16, "adapter_init": adapter_init} for name in ADAPTER_METHODS},
        "training": BUDGET,
    }


PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "encoder": _make_preset("identity", max_target_tokens=None),
    "t5": _make_preset("paper", max_target_tokens=32),
}
"""Settings that depend on the kind of backbone: its lengths, the adapters, the learning rate and the budget."""


def choose_preset(settings: Mapping[str, Any]) -> Preset | None:
    """Return the setting `preset` or, if it is null, the preset of the backbone's `model_type`.

    Args:
        settings: a parameter tree, which has not been validated.

    Returns:
        The name of the preset; None if `backbone.path` is not set, which the validation of the tree reports.

    Raises:
        ConfigurationError: the preset is unknown, or the configuration of the backbone cannot be read.
    """
    preset, backbone = settings.get("preset"), settings.get("backbone")
    if preset is not None:
        if preset not in get_args(Preset):
            raise ConfigurationError(
                f"the setting 'preset' is {preset!r}; expected one of {', '.join(get_args(Preset))}, or null for the "
                "preset of the backbone. Change it."
            )
        return preset
    if not isinstance(backbone, Mapping) or not isinstance(path := backbone.get("path"), str):
        return None
    return "t5" if _read_model_type(path, backbone.get("revision")) in T5_MODEL_TYPES else "encoder"


def _read_model_type(path: str, revision: str | None) -> str:
    """Read the `model_type` of a backbone in a local folder, in the cache of the Hub or on the Hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    folder, name = Path(path), "config.json"
    try:
        if folder.is_dir():
            file = folder / name
        else:
            try:
                file = Path(hf_hub_download(path, name, revision=revision, local_files_only=True))
            except LocalEntryNotFoundError:
                file = Path(hf_hub_download(path, name, revision=revision))
        return str(json.loads(file.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = first_line(error).partition(". ")[0].rstrip(".")
        if isinstance(error, HFValidationError):
            reason = "there is no such folder"
        raise ConfigurationError(
            f"cannot read the model type of the backbone {path!r} ({reason}); expected a folder with {name}, or a "
            f"model on the Hub. Fix backbone.path, or set preset to {' or '.join(PRESETS)}."
        ) from None
