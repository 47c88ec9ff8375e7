"""Pieces of Markdown and HTML; every text is escaped but for `Safe` ones."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Safe(str):
    """Markup as it is."""

    __slots__ = ()


class Strong(str):
    """A text that stands out."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Cells by row under a head; the first cell of a row names it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def escaped(text: str) -> str:
    """A text in HTML, also inside of quotes."""
    if isinstance(text, Strong):
        return f"<strong>{html.escape(text)}</strong>"
    return text if isinstance(text, Safe) else html.escape(text)


def markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        told = (cell.replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(told)} |"

    body = [[f"**{cell}**" if isinstance(cell, Strong) else cell for cell in row] for row in table.rows]
    return "\n".join(map(line, [table.head, ["---"] * len(table.head), *body])) + "\n"


def table(shown: Table, caption: str, shares: Sequence[Sequence[float]] | None = None) -> str:
    """A table in HTML, in a box that scrolls by itself where it is wider than the page.

    Args:
        shares: of every cell but the rows' names, from 0 to 1: how dark it is.
    """
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in shown.head)
    lines = []
    for number, (name, *cells) in enumerate(shown.rows):
        own = shares[number] if shares else [None] * len(cells)
        rest = "".join(
            f"<td>{escaped(cell)}</td>" if share is None else f'<td style="--share:{share:.2f}">{escaped(cell)}</td>'
            for cell, share in zip(cells, own, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escaped(name)}</th>{rest}</tr>\n')
    kind = ' class="heat"' if shares else ""
    return f"""<div class="scroll" role="group" tabindex="0" aria-label="{escaped(caption)}">
<table{kind}><caption><span>{escaped(caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>
{"".join(lines)}</tbody></table></div>
"""


def details(summary: str, content: str) -> str:
    return f"<details><summary>{escaped(summary)}</summary>\n{content}</details>\n"


def answer(text: str) -> str:
    """The sentence that answers a section's question."""
    return f'<p class="answer">{escaped(text)}</p>\n'


def paragraph(text: str) -> str:
    return f"<p>{escaped(text)}</p>\n"


def grid(parts: Iterable[str], kind: str = "grid") -> str:
    """Parts side by side, as many as there is room for: `grid`, or `grid broad` for broad ones."""
    return f'<div class="{kind}">\n{"".join(parts)}</div>\n'
