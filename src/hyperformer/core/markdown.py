"""Names and texts of users in Markdown."""

from __future__ import annotations

import re

from hyperformer.core.types import Source

_ESCAPES = {"\n": "\\n", "\r": "\\r"}


def format_code(text: str) -> str:
    """Return a text as a code span, in which no character is Markdown; line breaks are written as escapes."""
    line = "".join(_ESCAPES.get(char, char) for char in text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line[:1] in ("`", " ", "") or line[-1:] in ("`", " ") else ""  # a renderer strips one space
    return f"{fence}{pad}{line}{pad}{fence}"


def format_template(template: Source) -> str:
    """Return a template, or a pair of templates, as code spans."""
    return format_code(template) if isinstance(template, str) else " and ".join(map(format_code, template))
