"""Loading of a backbone from a folder or the Hub: complete weights, and a tokenizer that is safe for any text."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.settings import BackboneSettings


def load_weights(model_class: Any, settings: BackboneSettings, optional: str = "", empty: bool = False) -> Any:
    """Load a model in float32 from safetensors.

    Args:
        model_class: an `Auto…` class of transformers.
        settings: path and revision of the backbone.
        optional: name of an unused module; its weights may be missing.
        empty: whether to leave the weights on the meta device; only the names of the file's tensors are read.

    Raises:
        HyperFormerError: tensors are missing; transformers would initialize them at random.
    """
    model, report = model_class.from_pretrained(
        settings.path,
        revision=settings.revision,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        device_map="meta" if empty else None,
    )
    missing = sorted(name for name in report["missing_keys"] if not optional or optional not in name.split("."))
    if missing:
        raise HyperFormerError(
            f"the weights of {settings.path!r} are missing {len(missing)} tensors that its config.json requires, the "
            f"first is {missing[0]!r}. Use the weights that belong to config.json."
        )
    return model.eval()


def load_tokenizer(settings: BackboneSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer with transformers.

    Raises:
        OSError: the backbone has no tokenizer, or it is damaged.
    """
    try:
        return AutoTokenizer.from_pretrained(settings.path, revision=settings.revision)
    except (TypeError, AttributeError) as error:  # raised when a vocabulary file is missing
        raise OSError("the tokenizer is missing") from error
    except Exception as error:
        if type(error) is Exception:  # the only type of errors that tokenizers raises
            raise OSError(f"tokenizer.json is damaged: {first_line(error)}") from error
        raise


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, settings: BackboneSettings, vocabulary: int, pairs: bool
) -> PreTrainedTokenizerFast:
    """Check a tokenizer, and make it truncate at the end and encode a special token in a text as ordinary text.

    Args:
        tokenizer: the tokenizer, which is changed in place.
        settings: path and lengths of the backbone.
        vocabulary: number of token embeddings of the model.
        pairs: whether the tokenizer encodes two texts as a pair.

    Raises:
        HyperFormerError: it is not a fast tokenizer, it has token ids that the model does not have, or
            `max_source_tokens` leaves no token for a text.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise HyperFormerError(
            f"the tokenizer of {settings.path!r} is a {type(tokenizer).__name__}; expected a fast tokenizer. Provide a "
            "tokenizer.json, or a format that transformers can convert to it."
        )
    tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)
    if tokens > vocabulary:
        raise HyperFormerError(
            f"the tokenizer of {settings.path!r} has {tokens} tokens; expected at most {vocabulary}, the vocabulary "
            "size of the model. Use the tokenizer that belongs to the model."
        )
    minimum = tokenizer.num_special_tokens_to_add(pair=pairs) + 1 + pairs
    if settings.max_source_tokens < minimum:
        raise HyperFormerError(
            f"backbone.max_source_tokens is {settings.max_source_tokens}; expected at least {minimum}: the special "
            "tokens and a token for each text. Raise the setting."
        )
    tokenizer.split_special_tokens = True
    tokenizer.truncation_side = "right"
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_padding()  # MiniLM's tokenizer.json enables padding, which would add [PAD] to any text
    highest = max(backend.encode("a", "a" if pairs else None).ids, default=0)
    if highest >= vocabulary:
        raise HyperFormerError(
            f"the tokenizer of {settings.path!r} adds the token id {highest} to a text; expected ids below "
            f"{vocabulary}, the vocabulary size of the model. Use the tokenizer that belongs to the model."
        )
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    matched = [
        token for token, number in special if number in _encode(backend, token) != _encode(backend, _split(token))
    ]
    if matched:  # the vocabulary of a Unigram tokenizer contains its special tokens as ordinary pieces
        replace = [normalizers.Replace(token, _split(token)) for token in matched]
        backend.normalizer = normalizers.Sequence([*replace, *([backend.normalizer] if backend.normalizer else [])])
    return tokenizer


def _split(token: str) -> str:
    """Return a special token with a space after its first character; no vocabulary contains such a token."""
    return f"{token[0]} {token[1:]}"


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a text without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
