"""Derive a tokenizer's normalization of characters, and express it as SentencePiece rules and patterns."""

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

protobuf: Any = sentencepiece_model_pb2  # its classes are created at import
PLACEHOLDER = "\ue000"
"""Character that replaces each character that is in no piece of the vocabulary."""
FORMS = ("", PLACEHOLDER, f" {PLACEHOLDER} ")
"""Possible normal forms of a character that is in no piece: nothing, a part of a word, or a separate word."""
PLANES = (range(1, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000))
"""Code points that Unicode assigns or may assign, except surrogates and NUL.

NUL is excluded because it ends a string in onnxruntime-extensions.
"""
BEYOND = (range(0x40000, 0xE0000), range(0xF0000, sys.maxunicode + 1))
"""Code points without an assigned character; all code points of a range have the same normal form."""


@cache
def list_decomposed() -> tuple[str, ...]:
    """List the sequences of letters and combining marks that Unicode composes into one character."""
    canonical = (unicodedata.normalize("NFD", chr(code)) for code in chain(*PLANES))
    half_width = (chr(letter) + mark for letter in range(0xFF66, 0xFF9E) for mark in "\uff9e\uff9f")  # of katakana
    composed = (pair for pair in half_width if len(unicodedata.normalize("NFKC", pair)) == 1)
    return (*(sequence for sequence in canonical if len(sequence) > 1), *composed)


class Characters:
    """A tokenizer's normalization of characters.

    Args:
        normalize: returns the normal form that a character, or a letter with its marks, has in the middle of a text.
        pieces: the pieces of the vocabulary; their characters are the known characters.
    """

    def __init__(self, normalize: Callable[[str], str], pieces: Iterable[str]) -> None:
        self._normalize, self.alphabet = normalize, {" ", *(char for piece in pieces for char in piece)}

    def unknown_pattern(self, form: str) -> str:
        """Return a regular expression for the characters in no piece that have this normal form, one of `FORMS`."""
        return _pattern(codes for codes, other in self._unknown.items() if other == form)

    @cached_property
    def _unknown(self) -> dict[range, str]:
        """Normal form of the characters that are in no piece, by range of code points.

        Combining marks and the letters that they may combine with are excluded: `_rules` contains them.
        """
        combining = {char for sequence in list_decomposed() for char in sequence}
        forms = {}
        for codes in (*(range(code, code + 1) for code in chain(*PLANES)), *BEYOND):
            form = self._replace_unknown(chr(codes.start))
            if chr(codes.start) not in combining and form in FORMS:
                forms[codes] = form
        return forms

    @cached_property
    def _rules(self) -> dict[str, str]:
        """Normal forms of all other characters and of letters with combining marks.

        Texts that equal their normal form are omitted.
        """
        singles = (chr(code) for code in chain(*PLANES) if range(code, code + 1) not in self._unknown)
        return {
            text: form for text in chain(singles, list_decomposed()) if (form := self._replace_unknown(text)) != text
        }

    def _replace_unknown(self, text: str) -> str:
        """Normalize a text, and replace characters that are in no piece by `PLACEHOLDER`."""
        return "".join(char if char in self.alphabet else PLACEHOLDER for char in self._normalize(text))

    def model(self) -> Any:
        """Return a SentencePiece model with this normalization and no pieces yet."""
        model = protobuf.ModelProto()
        model.normalizer_spec.precompiled_charsmap = _compile(self._rules)
        model.normalizer_spec.escape_whitespaces = True
        return model


def _pattern(characters: Iterator[range]) -> str:
    """Return a regular expression that matches any of these characters; without characters, it matches only NUL."""
    ranges: list[range] = []
    for codes in sorted(characters, key=lambda codes: codes.start):
        if ranges and ranges[-1].stop == codes.start:
            ranges[-1] = range(ranges[-1].start, codes.stop)
        else:
            ranges.append(codes)
    return "[" + "".join(f"\\x{{{codes.start:X}}}-\\x{{{codes.stop - 1:X}}}" for codes in ranges or [range(1)]) + "]"


def _compile(rules: Mapping[str, str]) -> bytes:
    """Compile normalization rules to SentencePiece's binary format, with SentencePiece's trainer."""
    lines = ("\t".join(" ".join(f"{ord(char):X}" for char in text) for text in rule) for rule in sorted(rules.items()))
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        table.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"]),
            model_writer=model,
            model_type="char",
            vocab_size=7,
            normalization_rule_tsv=str(table),
            hard_vocab_limit=False,
            minloglevel=2,
        )
    return bytes(protobuf.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap)
