"""HTML and SVG from the templates of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hyperformer.report.theme import STYLE

ENVIRONMENT = Environment(
    loader=PackageLoader("hyperformer.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {"number": format, "percent": lambda share: f"{100 * share:.1f}"}


def render_template(name: str, **context: Any) -> str:
    """Render a template; all text is escaped, and a variable that is not in `context` is an error."""
    return ENVIRONMENT.get_template(name).render(context, style=STYLE)


def render_document(title: str, introduction: str, sections: Mapping[str, str], **context: Any) -> str:
    """Render a self-contained HTML page.

    Args:
        title: The title of the page.
        introduction: The text below the title.
        sections: The question that each section answers, and the section's template.
        context: The variables of the sections' templates.
    """
    return render_template("page.html.jinja", title=title, introduction=introduction, sections=sections, **context)
