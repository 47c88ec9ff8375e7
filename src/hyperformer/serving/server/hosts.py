"""Check the Host and Origin headers, to refuse requests from the pages of other sites."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ANY = "*"
FORBIDDEN = 403
MAX_QUOTED = 100
"""Maximum number of characters of a header that an error quotes."""
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::[0-9]{1,5})?", re.ASCII)
"""A name, an IPv4 address, or an IPv6 address in brackets; then an optional port."""


def is_host(name: str) -> bool:
    """Return whether a text is a name or an address, without scheme, brackets and port."""
    return bool(re.fullmatch(r"[\w.-]+", name, re.ASCII)) or _address(name) is not None


def is_loopback(host: str) -> bool:
    """Return whether a host without a port is localhost or a loopback address."""
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _normalize(name: str) -> str:
    """Return the canonical form of an address or a name."""
    return str(_address(name) or name.lower())


def is_probe(path: str) -> bool:
    """Return whether a path is that of a health check or of the metrics for Prometheus."""
    return path.startswith("/v2/health/") or path == "/metrics"


class HostCheck:
    """ASGI middleware that responds with status 403 to an unknown Host and to the Origin of another site.

    A browser lets a page send requests to any address, and names the page's site in Origin. After DNS rebinding, where
    the name of another site resolves to this server, Host contains that name. Health checks and Prometheus address a
    machine by its IP address, so the paths for them accept any Host.

    Args:
        app: the wrapped application.
        host: the address that the server binds to; a loopback address allows localhost, 127.0.0.0/8 and ::1.
        names: further allowed names, without a port; `*` allows any name.
    """

    def __init__(self, app: ASGIApp, host: str, names: Iterable[str]) -> None:
        self._app = app
        self._loopback = is_loopback(host)
        self._names = frozenset(map(_normalize, names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a refused request, and pass other requests to the application."""
        reason = self._refusal(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else ""
        if reason:
            headers = {"Connection": "close"}  # the body, if any, is not read
            await JSONResponse({"error": reason}, FORBIDDEN, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> str:
        host = headers.get("host", "")
        if not is_probe(path) and not self._allows(host):
            return (
                f"the Host header is {host[:MAX_QUOTED]!r}; expected a name of this server. Use localhost on the "
                "server's machine, or start the server with --allowed-hosts and this name."
            )
        for origin in headers.getlist("origin"):
            if not _is_same_site(origin, host):
                return (
                    f"the Origin header is {origin[:MAX_QUOTED]!r}; expected the origin of this server, "
                    f"{host[:MAX_QUOTED]!r}. Send requests from this server's page, or without a browser."
                )
        return ""

    def _allows(self, host: str) -> bool:
        if ANY in self._names:
            return True
        match = HOST.fullmatch(host)
        if match is None:
            return False
        name = _normalize(match[1] or match[2])
        return name in self._names or (self._loopback and is_loopback(name))


def _is_same_site(origin: str, host: str) -> bool:
    """Return whether Origin and Host have the same name and port; the scheme may differ behind a TLS proxy."""
    try:
        url = urlsplit(origin)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and url.netloc.lower() == host.lower() != ""
