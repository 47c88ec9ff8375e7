"""Matplotlib figures as SVG with reproducible bytes, and as SVG elements whose colours follow the page."""

from __future__ import annotations

import io
import re
from xml.dom import minidom

import matplotlib
from matplotlib.figure import Figure

from hyperformer.report.theme import LIGHT

METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""Metadata to leave out of a file."""
INVALID = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot represent."""
REFERENCE = re.compile(r"(?:url\()?#([\w-]+)\)?")
FONT = re.compile(r"font-family: [^;]*")
COLOURS = {colour: f"var(--{name})" for name, colour in LIGHT.items()}


def render_svg(figure: Figure, salt: str = "hyperformer") -> str:
    """Render a figure as an SVG document; the same figure and salt give the same bytes.

    Args:
        figure: The figure.
        salt: A text that the ids of elements depend on.
    """
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=METADATA)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def render_elements(figure: Figure, salt: str) -> str:
    """Render a figure as SVG elements with the colours of the theme as CSS variables, and with ids unique in a page.

    Args:
        figure: The figure, drawn with the setting `svg.fonttype: none`.
        salt: A text that no other figure of the page has.
    """
    document = minidom.parseString(INVALID.sub("\ufffd", render_svg(figure, salt)).encode())
    root = document.documentElement
    assert root is not None
    for element in root.getElementsByTagName("style"):
        if element.parentNode:  # the rules of this element would apply to the whole page
            element.parentNode.removeChild(element)
    elements = root.getElementsByTagName("*")
    referenced = {
        match[1]
        for element in elements
        for name in ("xlink:href", "clip-path")
        if (match := REFERENCE.fullmatch(element.getAttribute(name)))
    }
    for element in elements:
        if element.getAttribute("id") not in referenced and element.hasAttribute("id"):
            element.removeAttribute("id")
        if element.hasAttribute("style"):
            style = FONT.sub("font-family: system-ui, sans-serif", element.getAttribute("style"))
            element.setAttribute("style", re.sub(r"#\w{6}", lambda match: COLOURS.get(match[0], match[0]), style))
    return "".join(child.toxml() for child in root.childNodes)
