"""Model families. A new family is one file here and one line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable

from safetensors import SafetensorError
from transformers import AutoConfig

from hyperformer.backbones import t5
from hyperformer.backbones.base import Backbone
from hyperformer.config import BackboneSettings
from hyperformer.types import HyperFormerError

FAMILIES: dict[str, Callable[[str, str | None, str], Backbone]] = {"t5": t5.load}
"""By transformers' `model_type`: loads (path, revision, the adapters' activation)."""


def load(settings: BackboneSettings, activation: str = "relu") -> Backbone:
    """The backbone of a configuration, from a folder or a hub name; `activation` is that of its adapters.

    Raises:
        HyperFormerError: nothing is there, its family is not known, or it has no safetensors weights.
    """
    path = settings.path
    try:
        family = AutoConfig.from_pretrained(path, revision=settings.revision).model_type
        if family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise HyperFormerError(
                f"the backbone {path!r} is a {family!r} model, expected one of {known}; set backbone.path"
            )
        return FAMILIES[family](path, settings.revision, activation)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")  # the first sentence says it
        raise HyperFormerError(
            f"no backbone could be loaded from {path!r} ({reason}); set backbone.path to a folder with config.json, "
            "model.safetensors and tokenizer.json, or to a hub name"
        ) from error


__all__ = ["FAMILIES", "Backbone", "load"]
