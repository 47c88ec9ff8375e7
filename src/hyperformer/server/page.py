"""The page that tries the tasks, and the headers that keep it to this server."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def page() -> tuple[str, dict[str, str]]:
    """The page's HTML, and the headers to serve it with: of what it holds, its own style and script alone may work."""
    html = files("hyperformer.server").joinpath("page.html").read_text(encoding="utf-8")
    style, script = (_hash(html, tag) for tag in ("style", "script"))
    policy = [
        "default-src 'none'",
        f"style-src {style}",
        f"script-src {script}",
        "connect-src 'self'",
        "img-src data:",  # an empty icon, so that none is asked for
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # text never becomes HTML or a script
        "trusted-types 'none'",
    ]
    return html, {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _hash(html: str, tag: str) -> str:
    """What a policy calls the only such element of a page."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
