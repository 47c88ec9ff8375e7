"""Model families. A new family is one file here and one line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig
from transformers.utils.hub import cached_file

from hyperformer import manifest
from hyperformer.backbones.base import Answers, Backbone
from hyperformer.backbones.dropout import hasten
from hyperformer.backbones.encoder import EncoderBackbone
from hyperformer.backbones.heads import AnswerHeads
from hyperformer.backbones.t5 import SENTINELS, T5Backbone, new, train_tokenizer
from hyperformer.config import BackboneSettings
from hyperformer.types import HyperFormerError

FAMILIES: dict[str, type[Backbone]] = {
    **dict.fromkeys(("t5", "mt5", "umt5"), T5Backbone),
    **dict.fromkeys(("bert", "electra", "roberta", "xlm-roberta", "camembert"), EncoderBackbone),
}
"""By transformers' `model_type`; T5 v1.1, Flan-T5 and ByT5 are `t5`, MiniLM is `bert` or `xlm-roberta`."""

FILES = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.*", "merges.txt", "*.model")
"""Of a backbone: weights, sizes, and tokenizer."""


def load(settings: BackboneSettings) -> Backbone:
    """The backbone of a configuration, from a folder or a hub name.

    Raises:
        HyperFormerError: nothing is there, its family is not known, or it has no safetensors weights.
    """
    with _named(settings):
        family, _ = _family(settings)
        backbone = family.load(settings)
    hasten(backbone)
    return backbone


def skeleton(settings: BackboneSettings) -> Backbone:
    """The backbone on the meta device, from its configuration alone: for counting.

    Raises:
        HyperFormerError: nothing is there, or its family is not known.
    """
    with _named(settings):
        family, config = _family(settings)
        return family.skeleton(config)


def checksum(settings: BackboneSettings) -> str:
    """One checksum of the files that make the backbone what it is, wherever they are."""
    with _named(settings):
        found = cached_file(settings.path, "config.json", revision=settings.revision)
    return manifest.files_sha256(sorted({file for kind in FILES for file in Path(str(found)).parent.glob(kind)}))


def _family(settings: BackboneSettings) -> tuple[type[Backbone], PretrainedConfig]:
    config = AutoConfig.from_pretrained(settings.path, revision=settings.revision)
    if config.model_type not in FAMILIES:
        raise HyperFormerError(
            f"the backbone {settings.path!r} is a {config.model_type!r} model, expected one of {', '.join(FAMILIES)}; "
            "set backbone.path"
        )
    return FAMILIES[config.model_type], config


@contextmanager
def _named(settings: BackboneSettings) -> Iterator[None]:
    """What transformers says of a backbone that is not there, as a sentence with its name."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")  # the first sentence says it
        raise HyperFormerError(
            f"no backbone could be loaded from {settings.path!r} ({reason}); set backbone.path to a folder with "
            "config.json, model.safetensors and tokenizer.json, or to a hub name"
        ) from error


__all__ = [
    "FAMILIES",
    "SENTINELS",
    "AnswerHeads",
    "Answers",
    "Backbone",
    "checksum",
    "load",
    "new",
    "skeleton",
    "train_tokenizer",
]
