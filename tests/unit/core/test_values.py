from __future__ import annotations

import datetime
import decimal
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.values import MAX_INTEGER, is_missing, to_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (" 7.0 ", " 7.0 "),
        ("Ünï\x00\n", "Ünï\x00\n"),
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-5, "0.00001"),
        (1.5e-6, "0.0000015"),
        (-1e-7, "-1e-7"),
        (1.25e-10, "1.25e-10"),
        (5e-324, "5e-324"),
        (123456789.125, "123456789.125"),
        (1e15, "1000000000000000"),
        (MAX_INTEGER, "9007199254740991"),
        (-float(MAX_INTEGER), "-9007199254740991"),
        (True, "true"),
        (False, "false"),
        (np.int64(3), "3"),
        (np.float64(2.5), "2.5"),
        (np.float32(0.1), "0.1"),
        (np.bool_(True), "true"),
        (np.str_("x"), "x"),
    ],
)
def test_each_value_has_one_text(value: object, text: str) -> None:
    assert to_text(value, "a") == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the row's 'a' is null, expected a string, a number or a boolean. Fill it"),
        (math.nan, "is nan, expected a string or a finite number"),
        (-math.inf, "is -inf, expected a string or a finite number"),
        (MAX_INTEGER + 1, "is an integer beyond ±9007199254740991"),
        (-(10**30), "is an integer beyond"),
        (1e20, "is an integer beyond"),
        (datetime.date(2024, 1, 1), "is a date, expected a string, a number or a boolean. Convert it to a string"),
        (datetime.datetime(2024, 1, 1), "is a datetime"),
        (np.datetime64("2024-01-01"), "is a date,"),
        (decimal.Decimal("1.5"), "is a Decimal"),
        (["x"], "is a list"),
        (np.array([7]), "is a ndarray"),
        ({"x": 1}, "is a dict"),
        (b"x", "is a bytes"),
        ("a\ud83d", r"half of a surrogate pair \(\\ud83d\)"),
        ("caf\udce9", "has the byte 0xe9 after 'caf', which is not UTF-8"),
    ],
)
def test_a_value_without_an_exact_text_is_refused(value: object, message: str) -> None:
    with pytest.raises(HyperFormerError, match=message):
        to_text(value, "a")


@pytest.mark.parametrize("value", [None, math.nan, np.float64("nan"), np.float32("nan")])
def test_null_and_nan_are_missing(value: object) -> None:
    assert is_missing(value)
    assert not is_missing(0.0)
    assert not is_missing("")


@given(st.floats(allow_nan=False, allow_infinity=False, max_value=MAX_INTEGER, min_value=-MAX_INTEGER))
def test_the_text_of_a_number_reads_as_this_number(number: float) -> None:
    assert float(to_text(number, "a")) == number
