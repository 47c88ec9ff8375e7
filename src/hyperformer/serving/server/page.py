"""The page to try tasks in a browser, and its security headers."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def load_page() -> tuple[str, dict[str, str]]:
    """Return the HTML of the page and its headers, which allow only the page's inline style and script."""
    html = files("hyperformer.serving.server").joinpath("page.html").read_text(encoding="utf-8")
    style, script = (_hash(html, tag) for tag in ("style", "script"))
    policy = [
        "default-src 'none'",
        f"style-src {style}",
        f"script-src {script}",
        "connect-src 'self'",
        "img-src data:",  # an empty icon, so that the browser requests none
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # text is never parsed as HTML or run as a script
        "trusted-types 'none'",
    ]
    return html, {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _hash(html: str, tag: str) -> str:
    """Return the source expression of a page's only `tag` element, for a Content-Security-Policy."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
