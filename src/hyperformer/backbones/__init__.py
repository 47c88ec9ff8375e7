"""Backbones: the supported model families.

A new family needs a module and a call of `register_backbone`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig
from transformers.utils.hub import cached_file

from hyperformer.backbones.base import Answers, Backbone, GenerativeBackbone
from hyperformer.backbones.dropout import replace_dropout
from hyperformer.backbones.encoder import EncoderBackbone
from hyperformer.backbones.heads import AnswerHeads
from hyperformer.backbones.t5 import T5Backbone, create_backbone
from hyperformer.backbones.t5_tokenizers import SENTINELS, train_tokenizer
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import files_sha256, is_damage
from hyperformer.settings import BackboneSettings

FAMILIES: dict[str, type[Backbone]] = {}
"""Class of each registered `model_type` of transformers."""


def register_backbone(family: type[Backbone], *model_types: str) -> None:
    """Register a family of backbones for values of transformers' `model_type`.

    Raises:
        ValueError: another family is registered for a model type.
    """
    for model_type in model_types:
        if FAMILIES.setdefault(model_type, family) is not family:
            raise ValueError(f"the model type {model_type!r} is registered already; expected a new one")


register_backbone(T5Backbone, "t5", "mt5", "umt5")  # T5 v1.1, Flan-T5 and ByT5 are t5
register_backbone(EncoderBackbone, "bert", "electra", "roberta", "xlm-roberta", "camembert")  # MiniLM is one of them

FILES = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.*", "merges.txt", "*.model")
"""Patterns of the files that define a backbone: weights, configuration and tokenizer."""


def load(settings: BackboneSettings, empty: bool = False) -> Backbone:
    """Load a backbone from a folder or the Hub.

    Args:
        settings: location and lengths of the backbone.
        empty: whether to leave the weights on the meta device, for checks; their file must still be complete.

    Raises:
        HyperFormerError: there is no model at the path, its family is not supported, or it has no safetensors weights.
    """
    with _loading_errors(settings):
        family, _ = _find_family(settings)
        backbone = family.load(settings, empty)
    replace_dropout(backbone)
    return backbone


def load_without_weights(settings: BackboneSettings) -> Backbone:
    """Load a backbone's architecture on the meta device, to count its parameters.

    Raises:
        HyperFormerError: there is no model at the path, or its family is not supported.
    """
    with _loading_errors(settings):
        family, config = _find_family(settings)
        return family.from_config(config)


def compute_checksum(settings: BackboneSettings) -> str:
    """Return the sha256 over the files that define the backbone, independent of their location."""
    with _loading_errors(settings):
        config = cached_file(settings.path, "config.json", revision=settings.revision)
    return files_sha256(sorted({file for kind in FILES for file in Path(str(config)).parent.glob(kind)}))


def _find_family(settings: BackboneSettings) -> tuple[type[Backbone], PretrainedConfig]:
    config = AutoConfig.from_pretrained(settings.path, revision=settings.revision)
    if config.model_type not in FAMILIES:
        raise HyperFormerError(
            f"backbone {settings.path!r} is a {config.model_type!r} model; expected one of {', '.join(FAMILIES)}. "
            "Set backbone.path to a supported model."
        )
    return FAMILIES[config.model_type], config


@contextmanager
def _loading_errors(settings: BackboneSettings) -> Iterator[None]:
    """Turn the errors that transformers raises for a missing backbone into an error that names the backbone."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        if not is_damage(error):
            raise
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")  # its first sentence has the cause
        raise HyperFormerError(
            f"cannot load a backbone from {settings.path!r} ({reason}). Set backbone.path to a folder with "
            "config.json, model.safetensors and tokenizer.json, or to a Hub name."
        ) from error


__all__ = [
    "FAMILIES",
    "SENTINELS",
    "AnswerHeads",
    "Answers",
    "Backbone",
    "GenerativeBackbone",
    "compute_checksum",
    "create_backbone",
    "load",
    "load_without_weights",
    "register_backbone",
    "train_tokenizer",
]
