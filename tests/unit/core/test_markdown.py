"""Names and texts of users cannot change the Markdown around them."""

from __future__ import annotations

import pytest

from hyperformer.core.markdown import format_code, format_template


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sst_2", "`sst_2`"),
        ("a|b <i> {x} **y**", "`a|b <i> {x} **y**`"),
        ("`x`", "`` `x` ``"),
        ("a``b", "```a``b```"),
        (" a ", "`  a  `"),
        ("two\r\nlines", r"`two\r\nlines`"),
    ],
)
def test_a_text_is_one_code_span(text: str, code: str) -> None:
    assert format_code(text) == code


def test_both_texts_of_a_pair_are_code_spans() -> None:
    assert format_template("{a}") == "`{a}`"
    assert format_template(("{a}", "`{b}`")) == "`{a}` and `` `{b}` ``"
