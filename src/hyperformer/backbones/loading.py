"""What is read of a backbone's folder or hub name: all of its weights, and a tokenizer to which texts are texts."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hyperformer.config import BackboneSettings
from hyperformer.types import HyperFormerError


def weights(kind: Any, settings: BackboneSettings, unread: str = "") -> Any:
    """A model in float32, out of safetensors.

    Args:
        kind: transformers' class, an `Auto…` one.
        unread: the part that is never used, and may lack.
    Raises:
        HyperFormerError: tensors are missing, which transformers would make up.
    """
    model, found = kind.from_pretrained(
        settings.path,
        revision=settings.revision,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in found["missing_keys"] if not unread or unread not in name.split("."))
    if missing:
        raise HyperFormerError(
            f"the weights of {settings.path!r} lack {len(missing)} tensors that its config.json asks for, the first is "
            f"{missing[0]!r}; give the weights that belong to it"
        )
    return model.eval()


def tokenizer(settings: BackboneSettings) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers knows it.

    Raises:
        OSError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(settings.path, revision=settings.revision)
    except TypeError as error:  # of a name of a file that is not there
        raise OSError("it holds no tokenizer") from error


def strict(
    found: PreTrainedTokenizerBase, settings: BackboneSettings, embeddings: int, pairs: bool
) -> PreTrainedTokenizerFast:
    """The tokenizer, to which marks like </s> in a text are text; a text is cut at its end.

    Args:
        embeddings: how many tokens the model knows.
        pairs: whether it joins two texts.
    Raises:
        HyperFormerError: it is no fast one, has tokens that the model does not know, or the settings leave no room for
            a text.
    """
    if not isinstance(found, PreTrainedTokenizerFast):
        raise HyperFormerError(
            f"the tokenizer of {settings.path!r} is a {type(found).__name__}, expected one with a tokenizer.json, or "
            "that transformers makes one of; bundles hold nothing else"
        )
    tokens = 1 + max(found.get_vocab().values(), default=-1)
    if tokens > embeddings:
        raise HyperFormerError(
            f"the tokenizer of {settings.path!r} has {tokens} tokens, but the model knows {embeddings}; give the "
            "tokenizer that belongs to it"
        )
    least = found.num_special_tokens_to_add(pair=pairs) + 1 + pairs
    if settings.max_source_tokens < least:
        raise HyperFormerError(
            f"backbone.max_source_tokens is {settings.max_source_tokens}, expected at least {least}, which leaves a "
            "token for each text beside the tokenizer's marks"
        )
    found.split_special_tokens = True
    found.truncation_side = "right"
    backend = found.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_padding()  # a file may ask for it, as MiniLM's does: [PAD] would be among the tokens of any text
    most = max(backend.encode("a", "a" if pairs else None).ids, default=0)
    if most >= embeddings:
        raise HyperFormerError(
            f"the tokenizer of {settings.path!r} adds the token id {most} to a text; expected ids below {embeddings}, "
            "which the model knows. Use the tokenizer that belongs to it."
        )
    marks = zip(found.all_special_tokens, found.all_special_ids, strict=True)
    read = [mark for mark, number in marks if number in _ids(backend, mark) != _ids(backend, _apart(mark))]
    if read:  # a Unigram vocabulary holds its marks as words
        apart = [normalizers.Replace(mark, _apart(mark)) for mark in read]
        backend.normalizer = normalizers.Sequence([*apart, *([backend.normalizer] if backend.normalizer else [])])
    return found


def _apart(mark: str) -> str:
    """Return a mark with a blank after its first character, as a vocabulary does not hold it."""
    return f"{mark[0]} {mark[1:]}"


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a text without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
