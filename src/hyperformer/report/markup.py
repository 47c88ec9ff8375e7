"""Builders of Markdown and HTML, named after the elements that they build.

In HTML, all text except `Markup` is escaped. Arguments that already are HTML, such as `content`, are not escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Markup(str):
    """HTML that is inserted without escaping."""

    __slots__ = ()


class Emphasis(str):
    """Text that is set in bold."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first entry of each row is the name of the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def escape(text: str) -> str:
    """Escape a text for HTML, including quotes in attributes."""
    if isinstance(text, Emphasis):
        return f"<strong>{html.escape(text)}</strong>"
    return text if isinstance(text, Markup) else html.escape(text)


def to_markdown(content: Table) -> str:
    """Render a table as Markdown."""

    def line(entries: Iterable[str]) -> str:
        escaped = (entry.replace("|", "\\|") for entry in entries)
        return f"| {' | '.join(escaped)} |"

    body = [[f"**{entry}**" if isinstance(entry, Emphasis) else entry for entry in row] for row in content.rows]
    return "\n".join(map(line, [content.header, ["---"] * len(content.header), *body])) + "\n"


def table(content: Table, caption: str, shares: Sequence[Sequence[float]] | None = None) -> str:
    """Render a table as HTML, in a box that scrolls when the table is wider than the page.

    Args:
        content: The table.
        caption: The caption, also read by screen readers.
        shares: The shade of each entry except the row names, from 0 to 1; None for no shading.
    """
    header = "".join(f'<th scope="col">{escape(entry)}</th>' for entry in content.header)
    lines = []
    for number, (name, *entries) in enumerate(content.rows):
        shades = shares[number] if shares else [None] * len(entries)
        rest = "".join(
            f"<td>{escape(entry)}</td>" if share is None else f'<td style="--share:{share:.2f}">{escape(entry)}</td>'
            for entry, share in zip(entries, shades, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{rest}</tr>\n')
    kind = ' class="heat"' if shares else ""
    return f"""<div class="scroll" role="group" tabindex="0" aria-label="{escape(caption)}">
<table{kind}><caption><span>{escape(caption)}</span></caption><thead><tr>{header}</tr></thead><tbody>
{"".join(lines)}</tbody></table></div>
"""


def details(summary: str, content: str) -> str:
    """Render HTML content that is folded behind a summary."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}</details>\n"


def answer(text: str) -> str:
    """Render the sentence that answers a section's question."""
    return f'<p class="answer">{escape(text)}</p>\n'


def paragraph(text: str) -> str:
    """Render a paragraph."""
    return f"<p>{escape(text)}</p>\n"


def grid(items: Iterable[str], css_class: str = "grid") -> str:
    """Render HTML items side by side, in as many columns as fit; the class `grid broad` has wider columns."""
    return f'<div class="{css_class}">\n{"".join(items)}</div>\n'
