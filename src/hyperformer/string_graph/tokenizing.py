"""A tokenizer's file as operators of onnxruntime-extensions."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto
from tokenizers import Tokenizer

from hyperformer.string_graph.characters import FORMS, STRANGE, Characters, protobuf
from hyperformer.string_graph.nodes import CONTRIBUTED, Nodes
from hyperformer.types import HyperFormerError

KINDS = protobuf.ModelProto.SentencePiece
SPACE = "▁"
"""What SentencePiece writes for a space."""
NEVER = -1e6
"""The score of a piece that no merge makes."""


@dataclass(frozen=True)
class Texts:
    """Token ids of texts without special tokens, all in one row; a text's begin at `starts`, and are `lengths` [B]."""

    ids: str
    starts: str
    lengths: str


class Operators(Protocol):
    """What makes token ids of texts."""

    def texts(self, nodes: Nodes, texts: str) -> Texts:
        """Adds what reads texts [B]."""


def operators(tokenizer: Tokenizer) -> Operators:
    """The operators that read as a tokenizer does, for as far as its kind tells.

    Raises:
        HyperFormerError: there are none of its kind.
    """
    described = json.loads(tokenizer.to_str())
    model, normalizer = described["model"], described["normalizer"] or {}
    if model["type"] == "WordPiece" and normalizer.get("type") == "BertNormalizer":
        return WordPiece(tokenizer, described)
    spaces = {part.get("replacement") for part in _steps(described["pre_tokenizer"], "pretokenizers")}
    if SPACE in spaces and model["type"] in ("Unigram", "BPE") and not model.get("byte_fallback"):
        return SentencePiece(tokenizer, described)
    raise HyperFormerError(
        f"the tokenizer is {model['type']} with the normalizer {normalizer.get('type', 'none')}, expected BERT's "
        "WordPiece or a vocabulary of SentencePiece's kind; give tokens to the bundle's own graph"
    )


def _steps(part: Mapping[str, Any] | None, inside: str) -> Iterator[Mapping[str, Any]]:
    """A step of a tokenizer, or those of a sequence of them."""
    if part is not None:
        yield from part.get(inside, [part])


def _bounded(nodes: Nodes, ids: str, bounds: str) -> Texts:
    """Texts of which `bounds` says where each begins, and where the last one ends, [B + 1]."""
    first, last = nodes.constant([0]), nodes.constant([-1])
    starts = nodes("Slice", bounds, first, last)
    ends = nodes("Slice", bounds, nodes.constant([1]), nodes.constant([sys.maxsize]))
    return Texts(ids, starts, nodes("Sub", ends, starts))


def _sentencepiece(nodes: Nodes, texts: str, model: Any) -> Texts:
    """Adds SentencePiece's operator with a model."""
    no = nodes.constant(np.array([False]))
    flat, bounds, _ = nodes.several(
        "SentencepieceTokenizer",
        3,
        texts,
        nodes.constant([0]),
        nodes.constant(np.zeros(1, dtype=np.float32)),
        *[no] * 4,
        domain=CONTRIBUTED,
        model=model.SerializeToString(deterministic=True),
    )
    return _bounded(nodes, nodes("Cast", flat, to=TensorProto.INT64), bounds)


def _replaced(nodes: Nodes, texts: str, pattern: str, by: str) -> str:
    """Adds what replaces all that a pattern matches."""
    return nodes.contributed("StringRegexReplace", texts, nodes.words(pattern), nodes.words(by), global_replace=1)


def _without_strange(nodes: Nodes, texts: str, characters: Characters) -> str:
    """Adds what puts the stand-in for characters that no piece has, and nothing for those that become nothing."""
    for form in FORMS:  # first nothing, as a text may hold the stand-in itself
        texts = _replaced(nodes, texts, characters.strange(form), form)
    return texts


class SentencePiece:
    """A vocabulary of SentencePiece's kind (Kudo and Richardson 2018): its own operator, with a model made of the file.

    The operator makes one unknown piece of neighbouring characters of no piece; where the tokenizer counts them one by
    one, each is made a piece beforehand.
    """

    def __init__(self, tokenizer: Tokenizer, described: Mapping[str, Any]) -> None:
        self._described, self._model = described, described["model"]
        named = self._model.get("unk_token")
        self._unknown = self._model["unk_id"] if named is None else tokenizer.token_to_id(named)
        self._one_by_one = self._model["type"] == "BPE" and not self._model["fuse_unk"]
        normalizer = tokenizer.normalizer
        beside = "一"  # joins with nothing
        parts = [step["type"] for step in _steps(described["pre_tokenizer"], "pretokenizers")]

        def becomes(words: str) -> str:
            found = normalizer.normalize_str(beside + words + beside)[1:-1] if normalizer else words
            return re.sub(r"\s", " ", found) if "WhitespaceSplit" in parts else found

        self._characters = Characters(becomes, (piece for piece, _ in self._pieces))

    def texts(self, nodes: Nodes, texts: str) -> Texts:
        for step in _steps(self._described["normalizer"], "normalizers"):
            words = step.get("pattern", {}).get("String", "")
            if len(words) > 1:  # a single character's is among the rules
                texts = _replaced(nodes, texts, re.escape(words), step["content"])
        if not self._given_map:
            texts = _without_strange(nodes, texts, self._characters)
        read = _sentencepiece(nodes, texts, self._proto())
        if not self._one_by_one:
            return read
        strange = nodes("Equal", read.ids, nodes.constant(len(self._pieces)))
        return Texts(nodes("Where", strange, nodes.constant(self._unknown), read.ids), read.starts, read.lengths)

    @cached_property
    def _pieces(self) -> list[tuple[str, float]]:
        """Each piece and its score, by its id."""
        vocabulary = self._model["vocab"]
        if self._model["type"] == "Unigram":
            return [(piece, score) for piece, score in vocabulary]
        ranks: dict[str, int] = {}
        for rank, pair in enumerate(self._model["merges"]):
            ranks.setdefault("".join(pair), rank)
        by_id = sorted(vocabulary, key=vocabulary.__getitem__)
        return [(piece, -float(ranks[piece]) if piece in ranks else NEVER) for piece in by_id]

    def _proto(self) -> Any:
        """SentencePiece's model of the same pieces, scores and normalization."""
        special = {token["content"] for token in self._described["added_tokens"]}
        model = protobuf.ModelProto() if self._given_map else self._characters.model()
        spec = model.normalizer_spec
        spec.add_dummy_prefix = spec.remove_extra_whitespaces = spec.escape_whitespaces = True
        if self._given_map:
            spec.precompiled_charsmap = self._given_map
        for number, (piece, score) in enumerate(self._pieces):
            kind = KINDS.UNKNOWN if number == self._unknown else KINDS.CONTROL if piece in special else KINDS.NORMAL
            model.pieces.add(piece=piece, score=score, type=kind)
        if self._one_by_one:
            model.pieces.add(piece=STRANGE, score=NEVER, type=KINDS.NORMAL)
        family = getattr(protobuf.TrainerSpec, self._model["type"].upper())
        model.trainer_spec.CopyFrom(protobuf.TrainerSpec(model_type=family, unk_id=self._unknown))
        return model

    @cached_property
    def _given_map(self) -> bytes | None:
        """The normalization in SentencePiece's own form, where the file has it."""
        for part in _steps(self._described["normalizer"], "normalizers"):
            if part["type"] == "Precompiled":
                return base64.b64decode(part["precompiled_charsmap"])
        return None


class WordPiece:
    """BERT's tokenizer (Devlin et al. 2019): WordPiece's operator, on texts whose words stand apart.

    What becomes of characters is SentencePiece's work, with a piece for each: WordPiece's operator knows only spaces,
    and the one that is BERT's by name knows accents and cases of few languages.
    """

    def __init__(self, tokenizer: Tokenizer, described: Mapping[str, Any]) -> None:
        self._model = model = described["model"]
        normalizer, parted = tokenizer.normalizer, tokenizer.pre_tokenizer

        def becomes(words: str) -> str:
            found = parted.pre_tokenize_str(normalizer.normalize_str(f"a{words}a"))
            return " ".join(word for word, _ in found)[1:-1]

        mark = model["continuing_subword_prefix"]
        pieces = set(model["vocab"]) - {token["content"] for token in described["added_tokens"]}
        self._characters = Characters(becomes, (piece.removeprefix(mark) for piece in pieces))
        letters = self._characters.alphabet - {" "}
        lacking = sorted(char for char in letters if not {char, mark + char} <= pieces)
        if lacking:
            raise HyperFormerError(
                f"the vocabulary has {lacking[0]!r} not both as a first piece of a word and as a later one, as "
                "onnxruntime-extensions expects it of every character; give tokens to the bundle's own graph"
            )

    def texts(self, nodes: Nodes, texts: str) -> Texts:
        vocabulary = self._model["vocab"]
        parts = nodes.several(
            "WordpieceTokenizer",
            4,
            self._words_apart(nodes, texts),
            nodes.constant(np.zeros(0, dtype=np.int64)),
            domain=CONTRIBUTED,
            vocab=json.dumps(vocabulary, ensure_ascii=False),
            suffix_indicator=self._model["continuing_subword_prefix"],
            unknown_token=self._model["unk_token"],
            max_input_chars_per_word=self._model["max_input_chars_per_word"],
        )
        ids = nodes(
            "LabelEncoder",
            parts[0],
            domain="ai.onnx.ml",
            keys_strings=list(vocabulary),
            values_int64s=list(vocabulary.values()),
            default_int64=vocabulary[self._model["unk_token"]],
        )
        return _bounded(nodes, ids, parts[1])

    def _words_apart(self, nodes: Nodes, texts: str) -> str:
        """Adds what normalizes texts and puts spaces between their words."""
        model = self._characters.model()
        letters = sorted(self._characters.alphabet - {" ", SPACE})
        pieces = ["<unk>", SPACE, STRANGE, *letters]
        for piece in pieces:
            model.pieces.add(piece=piece, score=0.0, type=KINDS.NORMAL if piece != "<unk>" else KINDS.UNKNOWN)
        model.trainer_spec.CopyFrom(protobuf.TrainerSpec(model_type=protobuf.TrainerSpec.CHAR))
        read = _sentencepiece(nodes, _without_strange(nodes, texts, self._characters), model)
        table = nodes.words("", " ", STRANGE, *letters)
        width = nodes("Add", nodes("ReduceMax", read.lengths, keepdims=0), nodes.constant(1))
        places = nodes("Range", nodes.constant(0), width, nodes.constant(1))
        rows = nodes.constant([1])
        inside = nodes("Less", places, nodes("Unsqueeze", read.lengths, rows))
        at = nodes("Add", places, nodes("Unsqueeze", read.starts, rows))
        given = nodes("Concat", read.ids, nodes.constant([0]), axis=0)  # there may be none
        chosen = nodes("Gather", given, nodes("Where", inside, at, nodes.constant(0)))
        chars = nodes("Gather", table, nodes("Where", inside, chosen, nodes.constant(0)))
        normal = nodes.contributed("StringJoin", chars, nodes.words(""), nodes.constant([1]))
        # of a word that it cannot piece together the operator also gives the pieces that it could
        return _replaced(nodes, normal, f"[^ ]*{STRANGE}[^ ]*", STRANGE)
