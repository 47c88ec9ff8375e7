"""Colours and type of the page and of its charts, in light and in dark mode."""

from __future__ import annotations

PALETTE = {
    "page": ("#f6f7f9", "#0f1318"),
    "card": ("#ffffff", "#181d24"),
    "text": ("#1b1f24", "#e8ebef"),
    "quiet": ("#57606a", "#a5afbb"),
    "line": ("#d8dee4", "#2f3741"),
    "strong": ("#0a58ca", "#82b1ff"),
    "other": ("#8a4b00", "#ffb870"),
    "heat": ("#9cc4ff", "#1f4f99"),
}
"""Colours by name, in light and in dark mode; CSS has a variable for each name."""
LIGHT = {name: light for name, (light, _) in PALETTE.items()}
"""Colours that charts are drawn with; each is replaced by its CSS variable."""


def _declare_colours(mode: int) -> str:
    return " ".join(f"--{name}: {colours[mode]};" for name, colours in PALETTE.items())


STYLE = f"""\
:root {{ color-scheme: light dark; {_declare_colours(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_declare_colours(1)} }} }}
svg * {{ stroke-linejoin: round; }}
svg text {{ paint-order: stroke; stroke: var(--card); stroke-width: 3px; }}
"""
"""CSS of the colours, and of text in charts, which has an outline that separates it from lines below it."""
