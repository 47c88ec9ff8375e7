"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime.bundle import Precision
from hyperformer.runtime.sessions import Provider
from hyperformer.serving.server.hosts import ANY, is_host, is_loopback


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server: its folder of tasks, its address and its limits.

    Raises:
        HyperFormerError: a number is out of range, or `allowed_hosts` is required or has an invalid name.
    """

    root: Path
    """Folder of exported tasks, as bundles or on a shared base."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 selects a free port."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the Host header may have, without a port; `*` allows any name. Required unless `host` is a loopback
    address, for which loopback names are always allowed."""
    threads: int | None = None
    """Number of CPU threads; None for the provider's default."""
    precision: Precision = "float32"
    provider: Provider = "cpu"
    """Runs the graphs; see `runtime.load`."""
    allow_unpublished: bool = False
    """Also serve tasks that are not published, because their models are no better than the majority baseline."""
    batch: int = 32
    """Maximum number of rows in a batch, from any number of requests; 1 disables batching."""
    queue: int = 1024
    """Maximum number of rows in the queue; a request that exceeds it gets status 429."""
    rows: int = 256
    """Maximum number of rows in a request."""
    body_bytes: int = 4 << 20
    """Maximum size of a request body, in bytes."""
    text_bytes: int = 64 << 10
    """Maximum size of a text, in bytes. A text with more tokens than the task's maximum is truncated, not refused."""
    poll_seconds: float = 2.0
    """Interval at which the folder is checked for changed tasks, in seconds; 0 disables the checks."""
    shutdown_seconds: int = 30
    """Time limit for finishing accepted requests after a signal to stop, in seconds."""

    def __post_init__(self) -> None:
        self._check_hosts()
        for name, minimum in MINIMUM.items():
            value = getattr(self, name)
            if value is not None and not value >= minimum:  # also true for NaN
                raise HyperFormerError(f"{name} is {value}; expected at least {minimum}")
        for name, maximum in MAXIMUM.items():
            value = getattr(self, name)
            if value is not None and value > maximum:
                raise HyperFormerError(f"{name} is {value}; expected at most {maximum}")
        if self.rows > self.queue:
            raise HyperFormerError(
                f"rows is {self.rows} and queue is {self.queue}; expected rows to be at most queue. Increase queue or "
                "decrease rows."
            )

    def _check_hosts(self) -> None:
        for name in self.allowed_hosts:
            if name != ANY and not is_host(name):
                raise HyperFormerError(
                    f"allowed_hosts contains {name!r}; expected a name or an address without scheme and port, or "
                    f"{ANY}. Separate names by commas."
                )
        if not self.allowed_hosts and not is_loopback(self.host):
            raise HyperFormerError(
                f"host is {self.host}, which is not a loopback address; expected allowed_hosts to be set. Set "
                f"--allowed-hosts NAME[,NAME…] to the names by which clients reach the server, or to {ANY} for any."
            )


MAXIMUM = {"port": 65535, "threads": 1024, "poll_seconds": 86400}
MINIMUM = {
    "port": 0,
    "threads": 1,
    "batch": 1,
    "queue": 1,
    "rows": 1,
    "body_bytes": 1024,
    "text_bytes": 1,
    "poll_seconds": 0,
    "shutdown_seconds": 1,
}
assert MINIMUM.keys() | MAXIMUM.keys() <= {field.name for field in fields(ServerSettings)}
