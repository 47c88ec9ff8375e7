"""The text of a row's value, which is the same in training and in every way of serving."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from hyperformer.core.errors import HyperFormerError

MAX_INTEGER = 2**53 - 1
"""Largest integer that every reader of JSON reads exactly; numbers in JavaScript have 53 bits."""
SMALLEST_DECIMAL = 1e-6
"""JavaScript writes numbers that are closer to 0 with an exponent."""


def is_missing(value: Any) -> bool:
    """Return whether a value is null or NaN, which stands for null in data frames."""
    value = _unwrap(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _unwrap(value: Any) -> Any:
    """Return the Python value of a scalar of NumPy; of a float, that of its shortest decimal form."""
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    return float(str(value)) if value.dtype.kind == "f" else value.item()


def to_text(value: Any, column: str) -> str:
    """Return the text of a value.

    A string is its characters. A number is its shortest decimal form, as in JavaScript (ECMA-262, Number::toString):
    7.0 is "7", and 1e-05 is "0.00001"; that of a number in single precision is the shortest that this precision needs.
    A boolean is "true" or "false".

    Args:
        value: Value of a row.
        column: Name of the value's column, for messages.

    Raises:
        HyperFormerError: The value is null, a number that is not finite, an integer beyond `MAX_INTEGER`, text that
            UTF-8 cannot encode, or of another type, such as a date, a decimal or a list.
    """
    if isinstance(value, str):
        return value if value.isascii() else _check_characters(value, column)
    value = _unwrap(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _format_number(value, column)
    got = "null" if value is None else f"a {type(value).__name__}"
    advice = "Fill it" if value is None else "Convert it to a string"
    raise HyperFormerError(f"the row's {column!r} is {got}, expected a string, a number or a boolean. {advice}")


def _check_characters(value: str, column: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # how Python reads a byte that is not UTF-8
            raise HyperFormerError(
                f"the row's {column!r} has the byte 0x{code - 0xDC00:02x} after {value[: error.start][-20:]!r}, which "
                "is not UTF-8; expected text in UTF-8. Save the file as UTF-8"
            ) from None
        raise HyperFormerError(
            f"the row's {column!r} has an invalid character, half of a surrogate pair (\\u{code:04x}); expected text "
            "that UTF-8 can encode. Remove the character"
        ) from None
    return value


def _format_number(value: float, column: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise HyperFormerError(f"the row's {column!r} is {value}, expected a string or a finite number")
    if isinstance(value, int) or value.is_integer():
        if abs(value) > MAX_INTEGER:
            raise HyperFormerError(
                f"the row's {column!r} is an integer beyond ±{MAX_INTEGER}, which not every reader of JSON reads "
                "exactly; expected a smaller one. Write it as a string"
            )
        return str(int(value))
    digits = repr(float(value))
    if "e" not in digits:
        return digits
    if abs(value) >= SMALLEST_DECIMAL:
        return format(Decimal(digits), "f")
    mantissa, _, exponent = digits.partition("e")
    return f"{mantissa}e{int(exponent)}"
