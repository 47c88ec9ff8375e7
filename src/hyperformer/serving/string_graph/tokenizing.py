"""Build a tokenizer from operators of onnxruntime-extensions."""

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

from hyperformer.core.errors import HyperFormerError
from hyperformer.serving.string_graph.characters import FORMS, PLACEHOLDER, Characters, protobuf
from hyperformer.serving.string_graph.nodes import EXTENSIONS, Nodes

KINDS = protobuf.ModelProto.SentencePiece
SPACE = "▁"
"""SentencePiece's mark of a space."""
LOWEST_SCORE = -1e6
"""Score of a piece that no merge creates."""


@dataclass(frozen=True)
class Texts:
    """Names of the values of encoded texts.

    `ids` are the concatenated token ids of all texts, without special tokens. `starts` and `lengths` [B] are the first
    position of each text in `ids` and its number of tokens.
    """

    ids: str
    starts: str
    lengths: str


class Operators(Protocol):
    """Operators that encode texts into token ids."""

    def encode(self, nodes: Nodes, texts: str) -> Texts:
        """Add nodes that encode texts [B]."""


def choose_operators(tokenizer: Tokenizer) -> Operators:
    """Choose the operators that encode as a tokenizer does.

    The choice depends only on the kind of tokenizer; the caller must compare the operators' token ids with the
    tokenizer's.

    Raises:
        HyperFormerError: no operators support this kind of tokenizer, or its vocabulary.
    """
    config = json.loads(tokenizer.to_str())
    model, normalizer = config["model"], config["normalizer"] or {}
    if model["type"] == "WordPiece" and normalizer.get("type") == "BertNormalizer":
        return WordPiece(tokenizer, config)
    spaces = {step.get("replacement") for step in _steps(config["pre_tokenizer"], "pretokenizers")}
    if SPACE in spaces and model["type"] in ("Unigram", "BPE") and not model.get("byte_fallback"):
        return SentencePiece(tokenizer, config)
    raise HyperFormerError(
        f"the tokenizer is {model['type']} with normalizer {normalizer.get('type', 'none')}; expected BERT's WordPiece "
        "or a SentencePiece vocabulary. Use the bundle's own graph, which takes token ids."
    )


def _steps(component: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a tokenizer's component, which is a single step or a sequence of steps."""
    if component is not None:
        yield from component.get(key, [component])


def _split_at(nodes: Nodes, ids: str, bounds: str) -> Texts:
    """Add nodes that split token ids into texts at `bounds` [B + 1]: each text's start, and the last end."""
    first, last = nodes.constant([0]), nodes.constant([-1])
    starts = nodes("Slice", bounds, first, last)
    ends = nodes("Slice", bounds, nodes.constant([1]), nodes.constant([sys.maxsize]))
    return Texts(ids, starts, nodes("Sub", ends, starts))


def _sentencepiece(nodes: Nodes, texts: str, model: Any) -> Texts:
    """Add SentencePiece's operator with a model, to encode texts [B]."""
    no = nodes.constant(np.array([False]))
    flat, bounds, _ = nodes.with_outputs(
        "SentencepieceTokenizer",
        3,
        texts,
        nodes.constant([0]),
        nodes.constant(np.zeros(1, dtype=np.float32)),
        *[no] * 4,
        domain=EXTENSIONS,
        model=model.SerializeToString(deterministic=True),
    )
    return _split_at(nodes, nodes("Cast", flat, to=TensorProto.INT64), bounds)


def _replace(nodes: Nodes, texts: str, pattern: str, by: str) -> str:
    """Add a node that replaces all matches of a pattern."""
    return nodes.extension("StringRegexReplace", texts, nodes.strings(pattern), nodes.strings(by), global_replace=1)


def _replace_unknown(nodes: Nodes, texts: str, characters: Characters) -> str:
    """Add nodes that replace characters that are in no piece by their normal forms."""
    for form in FORMS:  # the empty form first, as it removes placeholders that a text contains
        texts = _replace(nodes, texts, characters.unknown_pattern(form), form)
    return texts


class SentencePiece:
    """Operators for a SentencePiece vocabulary (Kudo and Richardson 2018).

    SentencePiece's operator encodes texts with a model that is equivalent to the tokenizer.

    It merges adjacent characters that are in no piece into one unknown token. If the tokenizer does not merge them,
    each of these characters is first replaced by a placeholder, and the model has a piece for the placeholder.
    """

    def __init__(self, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
        self._config, self._model = config, config["model"]
        unk_token = self._model.get("unk_token")
        self._unk_id = self._model["unk_id"] if unk_token is None else tokenizer.token_to_id(unk_token)
        self._splits_unknown = self._model["type"] == "BPE" and not self._model["fuse_unk"]
        normalizer = tokenizer.normalizer
        neighbor = "一"  # a character that combines with no other character
        steps = [step["type"] for step in _steps(config["pre_tokenizer"], "pretokenizers")]

        def normalize(text: str) -> str:
            normalized = normalizer.normalize_str(neighbor + text + neighbor)[1:-1] if normalizer else text
            return re.sub(r"\s", " ", normalized) if "WhitespaceSplit" in steps else normalized

        self._characters = Characters(normalize, (piece for piece, _ in self._pieces))

    def encode(self, nodes: Nodes, texts: str) -> Texts:
        """Add nodes that encode texts [B]."""
        for step in _steps(self._config["normalizer"], "normalizers"):
            pattern = step.get("pattern", {}).get("String", "")
            if len(pattern) > 1:  # the rules replace single characters
                texts = _replace(nodes, texts, re.escape(pattern), step["content"])
        if not self._charsmap:
            texts = _replace_unknown(nodes, texts, self._characters)
        encoded = _sentencepiece(nodes, texts, self._build_model())
        if not self._splits_unknown:
            return encoded
        is_placeholder = nodes("Equal", encoded.ids, nodes.constant(len(self._pieces)))
        ids = nodes("Where", is_placeholder, nodes.constant(self._unk_id), encoded.ids)
        return Texts(ids, encoded.starts, encoded.lengths)

    @cached_property
    def _pieces(self) -> list[tuple[str, float]]:
        """Pieces and their scores, by id."""
        vocabulary = self._model["vocab"]
        if self._model["type"] == "Unigram":
            return [(piece, score) for piece, score in vocabulary]
        ranks: dict[str, int] = {}
        for rank, pair in enumerate(self._model["merges"]):
            ranks.setdefault("".join(pair), rank)
        by_id = sorted(vocabulary, key=vocabulary.__getitem__)
        return [(piece, -float(ranks[piece]) if piece in ranks else LOWEST_SCORE) for piece in by_id]

    def _build_model(self) -> Any:
        """Build a SentencePiece model with the pieces, scores and normalization of the tokenizer."""
        special = {token["content"] for token in self._config["added_tokens"]}
        model = protobuf.ModelProto() if self._charsmap else self._characters.model()
        spec = model.normalizer_spec
        spec.add_dummy_prefix = spec.remove_extra_whitespaces = spec.escape_whitespaces = True
        if self._charsmap:
            spec.precompiled_charsmap = self._charsmap
        for token_id, (piece, score) in enumerate(self._pieces):
            kind = KINDS.UNKNOWN if token_id == self._unk_id else KINDS.CONTROL if piece in special else KINDS.NORMAL
            model.pieces.add(piece=piece, score=score, type=kind)
        if self._splits_unknown:
            model.pieces.add(piece=PLACEHOLDER, score=LOWEST_SCORE, type=KINDS.NORMAL)
        family = getattr(protobuf.TrainerSpec, self._model["type"].upper())
        model.trainer_spec.CopyFrom(protobuf.TrainerSpec(model_type=family, unk_id=self._unk_id))
        return model

    @cached_property
    def _charsmap(self) -> bytes | None:
        """The compiled normalization rules of the tokenizer's file, if it has any."""
        for step in _steps(self._config["normalizer"], "normalizers"):
            if step["type"] == "Precompiled":
                return base64.b64decode(step["precompiled_charsmap"])
        return None


class WordPiece:
    """Operators for BERT's tokenizer (Devlin et al. 2019).

    The WordPiece operator encodes normalized texts with spaces between words.

    The WordPiece operator only splits texts at spaces, so SentencePiece's operator normalizes them first. For that, the
    vocabulary of SentencePiece has one piece for each character, and the ids that it returns are mapped back to
    characters and joined to texts. The BERT operator of onnxruntime-extensions is not used: it handles the accents and
    case of few languages.
    """

    def __init__(self, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
        self._model = model = config["model"]
        normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer

        def normalize(text: str) -> str:
            pieces = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(f"a{text}a"))
            return " ".join(word for word, _ in pieces)[1:-1]

        mark = model["continuing_subword_prefix"]
        pieces = set(model["vocab"]) - {token["content"] for token in config["added_tokens"]}
        self._characters = Characters(normalize, (piece.removeprefix(mark) for piece in pieces))
        letters = self._characters.alphabet - {" "}
        missing = sorted(char for char in letters if not {char, mark + char} <= pieces)
        if missing:
            raise HyperFormerError(
                f"the vocabulary has no {missing[0]!r} or no {mark + missing[0]!r}; onnxruntime-extensions expects "
                "both. Use the bundle's own graph, which takes token ids."
            )

    def encode(self, nodes: Nodes, texts: str) -> Texts:
        """Add nodes that encode texts [B]."""
        vocabulary = self._model["vocab"]
        tokens = nodes.with_outputs(
            "WordpieceTokenizer",
            4,
            self._separate_words(nodes, texts),
            nodes.constant(np.zeros(0, dtype=np.int64)),
            domain=EXTENSIONS,
            vocab=json.dumps(vocabulary, ensure_ascii=False),
            suffix_indicator=self._model["continuing_subword_prefix"],
            unknown_token=self._model["unk_token"],
            max_input_chars_per_word=self._model["max_input_chars_per_word"],
        )
        ids = nodes(
            "LabelEncoder",
            tokens[0],
            domain="ai.onnx.ml",
            keys_strings=list(vocabulary),
            values_int64s=list(vocabulary.values()),
            default_int64=vocabulary[self._model["unk_token"]],
        )
        return _split_at(nodes, ids, tokens[1])

    def _separate_words(self, nodes: Nodes, texts: str) -> str:
        """Add nodes that normalize texts and insert spaces between words."""
        model = self._characters.model()
        letters = sorted(self._characters.alphabet - {" ", SPACE})
        pieces = ["<unk>", SPACE, PLACEHOLDER, *letters]
        for piece in pieces:
            model.pieces.add(piece=piece, score=0.0, type=KINDS.NORMAL if piece != "<unk>" else KINDS.UNKNOWN)
        model.trainer_spec.CopyFrom(protobuf.TrainerSpec(model_type=protobuf.TrainerSpec.CHAR))
        chars = _sentencepiece(nodes, _replace_unknown(nodes, texts, self._characters), model)
        table = nodes.strings("", " ", PLACEHOLDER, *letters)
        width = nodes("Add", nodes("ReduceMax", chars.lengths, keepdims=0), nodes.constant(1))
        positions = nodes("Range", nodes.constant(0), width, nodes.constant(1))
        axis = nodes.constant([1])
        is_inside = nodes("Less", positions, nodes("Unsqueeze", chars.lengths, axis))
        indices = nodes("Add", positions, nodes("Unsqueeze", chars.starts, axis))
        padded = nodes("Concat", chars.ids, nodes.constant([0]), axis=0)  # there may be no ids
        ids = nodes("Gather", padded, nodes("Where", is_inside, indices, nodes.constant(0)))
        characters = nodes("Gather", table, nodes("Where", is_inside, ids, nodes.constant(0)))
        normalized = nodes.extension("StringJoin", characters, nodes.strings(""), nodes.constant([1]))
        # for a word with unknown characters the operator would also return its known pieces
        return _replace(nodes, normalized, f"[^ ]*{PLACEHOLDER}[^ ]*", PLACEHOLDER)
