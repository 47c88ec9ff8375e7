"""Check of the Host and Origin headers: which names a request may use, and which browser pages may send one."""

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
SHOWN = 100
"""Characters of a header that an error repeats."""
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::[0-9]{1,5})?", re.ASCII)
"""A name, an IPv4 address, or an IPv6 address in brackets; then a port, or none."""


def is_host(name: str) -> bool:
    """Tell if a text is a name or an address, without scheme, brackets and port."""
    return bool(re.fullmatch(r"[\w.-]+", name, re.ASCII)) or _address(name) is not None


def is_loopback(host: str) -> bool:
    """Tell if a name or an address without a port is this machine's loopback."""
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _normalize(name: str) -> str:
    """Write an address or a name in the one way in which it is compared."""
    return str(_address(name) or name.lower())


def is_probe(path: str) -> bool:
    """Tell if a path is one that health checks and Prometheus query."""
    return path.startswith("/v2/health/") or path == "/metrics"


class HostCheck:
    """ASGI middleware that answers 403 to an unknown Host and to the Origin of another site.

    A browser sends a page's requests to any address, and names the page's site in Origin; a name that its owner points
    to this server (DNS rebinding) stays in Host. Probes use a machine's address, so their paths accept any Host.

    Args:
        app: the application behind it.
        host: the address that the server listens at; loopback adds localhost, 127.0.0.0/8 and ::1 to the names.
        names: further names, without a port; `*` is any.
    """

    def __init__(self, app: ASGIApp, host: str, names: Iterable[str]) -> None:
        self._app = app
        self._loopback = is_loopback(host)
        self._names = frozenset(map(_normalize, names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._refusal(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else ""
        if reason:
            headers = {"Connection": "close"}  # a body may follow, which nobody reads
            await JSONResponse({"error": reason}, FORBIDDEN, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> str:
        host = headers.get("host", "")
        if not is_probe(path) and not self._allows(host):
            return (
                f"the Host is {host[:SHOWN]!r}; expected a name of this server. Use localhost on its machine, or start "
                "it with --allowed-hosts and this name."
            )
        for origin in headers.getlist("origin"):
            if not _is_same_site(origin, host):
                return (
                    f"the Origin is {origin[:SHOWN]!r}; expected the server's, {host[:SHOWN]!r}. Send requests from "
                    "the server's own page, or without a browser."
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
    """Compare an Origin's name and port with the Host's; the scheme may differ, as a proxy may end TLS."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() != ""
