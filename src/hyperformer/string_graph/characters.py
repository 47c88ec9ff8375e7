"""What a tokenizer makes of single characters, and the operators that do the same."""

from __future__ import annotations

import io
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2

protobuf: Any = sentencepiece_model_pb2  # whose classes appear as it is imported
STRANGE = "\ue000"
"""Stands for a character that no piece has; of private use, so that no text means anything by it."""


@cache
def named() -> tuple[str, ...]:
    """Every character that Unicode names but NUL, which ends a string of onnxruntime-extensions."""
    return tuple(
        char for char in map(chr, range(1, sys.maxunicode + 1)) if unicodedata.category(char) not in ("Cn", "Co", "Cs")
    )


class Characters:
    """What becomes of characters before a tokenizer looks for pieces.

    Args:
        becomes: what becomes of a character, or of a letter with its marks, within a text.
        pieces: whose characters are known.
    """

    def __init__(self, becomes: Callable[[str], str], pieces: Iterable[str]) -> None:
        self._becomes, self.alphabet = becomes, {" ", *(char for piece in pieces for char in piece)}

    def strange(self, alone: bool) -> str:
        """A pattern of single characters that no piece has: those that are words of their own, or the others."""
        return _pattern(char for char, word in self._strange.items() if word == alone)

    @cached_property
    def _strange(self) -> dict[str, bool]:
        """Single characters that no piece has, and whether each is a word of its own.

        Marks are not among them: one may join with the letter before it.
        """
        found = {}
        for char in named():
            becomes = self._becomes(char)
            if len(becomes.strip()) == 1 and becomes.strip() not in self.alphabet and not unicodedata.combining(char):
                found[char] = becomes.startswith(" ") and becomes.endswith(" ")
        return found

    @cached_property
    def _rules(self) -> dict[str, str]:
        """What other characters, and letters with their marks, become; what no piece has becomes strange."""
        apart = (unicodedata.normalize("NFD", char) for char in named() if not "가" <= char <= "힣")  # joined by rule
        given = chain((char for char in named() if char not in self._strange), (one for one in apart if len(one) > 1))
        written = {
            one: "".join(char if char in self.alphabet else STRANGE for char in self._becomes(one)) for one in given
        }
        return {one: other for one, other in written.items() if one != other}

    def model(self) -> Any:
        """A model of SentencePiece's, without pieces yet, that does what becomes of characters."""
        model = protobuf.ModelProto()
        model.normalizer_spec.precompiled_charsmap = _compiled(self._rules)
        model.normalizer_spec.escape_whitespaces = True
        return model


def _pattern(chars: Iterator[str]) -> str:
    """A regular expression of one of these characters."""
    ranges: list[list[int]] = []
    for place in map(ord, chars):
        if ranges and ranges[-1][1] == place - 1:
            ranges[-1][1] = place
        else:
            ranges.append([place, place])
    return "[" + "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in ranges) + "]"


def _compiled(rules: Mapping[str, str]) -> bytes:
    """Rules in SentencePiece's own form, as its trainer makes it."""
    lines = ("\t".join(" ".join(f"{ord(char):X}" for char in part) for part in rule) for rule in sorted(rules.items()))
    made = io.BytesIO()
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "rules.tsv"
        table.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"]),
            model_writer=made,
            model_type="char",
            vocab_size=7,
            normalization_rule_tsv=str(table),
            hard_vocab_limit=False,
            minloglevel=2,
        )
    return bytes(protobuf.ModelProto.FromString(made.getvalue()).normalizer_spec.precompiled_charsmap)
