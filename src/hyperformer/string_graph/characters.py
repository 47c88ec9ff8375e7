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
"""Stands for a character that no piece has."""
FORMS = ("", STRANGE, f" {STRANGE} ")
"""What becomes of a character that no piece has: nothing, a part of a word, or a word of its own."""
PLANES = (range(1, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000))
"""Where Unicode names characters, or may, but for NUL, which ends a string of onnxruntime-extensions."""
BEYOND = (range(0x40000, 0xE0000), range(0xF0000, sys.maxunicode + 1))
"""Where it names none, and one is as the other."""


@cache
def decomposed() -> tuple[str, ...]:
    """Letters with their marks, as several characters that Unicode joins to one."""
    apart = (unicodedata.normalize("NFD", chr(code)) for code in chain(*PLANES))
    half_width = (chr(letter) + mark for letter in range(0xFF66, 0xFF9E) for mark in "\uff9e\uff9f")  # of katakana
    joined = (one for one in half_width if len(unicodedata.normalize("NFKC", one)) == 1)
    return (*(one for one in apart if len(one) > 1), *joined)


class Characters:
    """What becomes of characters before a tokenizer looks for pieces.

    Args:
        becomes: what becomes of a character, or of a letter with its marks, within a text.
        pieces: whose characters are known.
    """

    def __init__(self, becomes: Callable[[str], str], pieces: Iterable[str]) -> None:
        self._becomes, self.alphabet = becomes, {" ", *(char for piece in pieces for char in piece)}

    def strange(self, becomes: str) -> str:
        """A pattern of single characters that no piece has and that become this, with `STRANGE` in their place."""
        return _pattern(codes for codes, form in self._strange.items() if form == becomes)

    @cached_property
    def _strange(self) -> dict[range, str]:
        """Characters that no piece has, and what becomes of them.

        One that a mark may join with is not among them, nor a mark: these have rules.
        """
        joined = {char for letters in decomposed() for char in letters}
        found = {}
        for codes in (*(range(code, code + 1) for code in chain(*PLANES)), *BEYOND):
            form = self._written(chr(codes.start))
            if chr(codes.start) not in joined and form in FORMS:
                found[codes] = form
        return found

    @cached_property
    def _rules(self) -> dict[str, str]:
        """What other characters, and letters with their marks, become."""
        singles = (chr(code) for code in chain(*PLANES) if range(code, code + 1) not in self._strange)
        given = chain(singles, decomposed())
        return {one: other for one in given if (other := self._written(one)) != one}

    def _written(self, words: str) -> str:
        """What words become, what no piece has as `STRANGE`."""
        return "".join(char if char in self.alphabet else STRANGE for char in self._becomes(words))

    def model(self) -> Any:
        """A model of SentencePiece's, without pieces yet, that does what becomes of characters."""
        model = protobuf.ModelProto()
        model.normalizer_spec.precompiled_charsmap = _compiled(self._rules)
        model.normalizer_spec.escape_whitespaces = True
        return model


def _pattern(found: Iterator[range]) -> str:
    """A regular expression of one of these characters; of none, where there are none."""
    ranges: list[range] = []
    for codes in sorted(found, key=lambda one: one.start):
        if ranges and ranges[-1].stop == codes.start:
            ranges[-1] = range(ranges[-1].start, codes.stop)
        else:
            ranges.append(codes)
    return "[" + "".join(f"\\x{{{one.start:X}}}-\\x{{{one.stop - 1:X}}}" for one in ranges or [range(1)]) + "]"


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
