"""What a server may be told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from hyperformer.runtime.bundle import Precision
from hyperformer.server.hosts import ANY, is_host, is_loopback
from hyperformer.types import HyperFormerError


@dataclass(frozen=True)
class ServerSettings:
    """Where a server's tasks are, and its limits.

    Raises:
        HyperFormerError: a number is out of its range.
    """

    root: Path
    """A folder of exported tasks, of bundles or on a shared base."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 for any free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names without a port that the Host header may hold beside localhost; `*` is any. Needed where `host` is not
    loopback."""
    threads: int | None = None
    """Of onnxruntime; None for its own choice."""
    precision: Precision = "float32"
    batch: int = 32
    """Rows that are answered at once at the most, of whatever requests; 1 answers every row for itself."""
    queue: int = 1024
    """Rows that may wait; a request beyond them is told to come back."""
    rows: int = 256
    """Rows of a request."""
    body_bytes: int = 4 << 20
    """Bytes of a request's body."""
    text_bytes: int = 64 << 10
    """Bytes of a text; of what is shorter, a task reads its own number of tokens, and says where it cut."""
    poll_seconds: float = 2.0
    """How often the folder is looked at for changed tasks; 0 for never."""
    shutdown_seconds: int = 30
    """How long accepted requests may take after the server was told to stop."""

    def __post_init__(self) -> None:
        self._check_hosts()
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:  # nan is neither
                raise HyperFormerError(f"{name} is {value}, expected at least {least}; give another")
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise HyperFormerError(f"{name} is {value}, expected at most {most}; give another")
        if self.rows > self.queue:
            raise HyperFormerError(
                f"rows is {self.rows} and queue {self.queue}: a request of so many rows could never wait; make the "
                "queue longer"
            )

    def _check_hosts(self) -> None:
        for name in self.allowed_hosts:
            if name != ANY and not is_host(name):
                raise HyperFormerError(
                    f"allowed_hosts has {name!r}; expected a name or an address without scheme and port, or {ANY}. "
                    "Separate several by commas."
                )
        if not self.allowed_hosts and not is_loopback(self.host):
            raise HyperFormerError(
                f"host is {self.host}; expected allowed_hosts beside it, as it is not loopback. Give "
                f"--allowed-hosts NAME[,NAME…], the names by which clients reach the server, or {ANY} for any."
            )


MOST = {"port": 65535, "threads": 1024, "poll_seconds": 86400}
LEAST = {
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
assert LEAST.keys() | MOST.keys() <= {field.name for field in fields(ServerSettings)}
