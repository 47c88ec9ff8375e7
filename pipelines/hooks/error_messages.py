"""Short messages, without a traceback, for errors that the user can fix."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click
from kedro.framework.hooks import hook_impl

from hyperformer.core.errors import HyperFormerError, first_line

log = logging.getLogger(__name__)

PATH_ADVICE = "Check the path, its permissions and free disk space"
NETWORK_ADVICE = "Check the network and the address"
NETWORK_ERRORS = "ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH ENETDOWN ENETUNREACH EPIPE ETIMEDOUT".split()
ADVICE = {
    **{getattr(errno, name): NETWORK_ADVICE for name in NETWORK_ERRORS},
    **dict.fromkeys((socket.EAI_AGAIN, socket.EAI_NONAME), NETWORK_ADVICE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the limit of open files (ulimit -n)"),
    **dict.fromkeys((errno.EADDRINUSE, errno.EADDRNOTAVAIL), "Use another address or port"),
    errno.ENOMEM: "Free memory",
}
"""Advice for errors of the operating system that are not about a file, by number."""


class ErrorMessages:
    """Hooks that report errors of nodes as short messages."""

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Report an error of a node as a short message if the user can fix it."""
        with short_message():
            raise error


@contextmanager
def short_message() -> Iterator[None]:
    """Replace an error in the block by a short message, if the user can fix the error or its cause."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, HyperFormerError):
                raise click.ClickException(str(cause)) from None
        for cause in causes:
            if isinstance(cause, OSError) and cause.errno is not None:
                message = f"{cause.filename}: {cause.strerror}" if cause.filename is not None else cause.strerror
                advice = ADVICE.get(cause.errno, PATH_ADVICE)
            elif os.strerror(errno.ENOSPC) in str(cause):  # libraries in C++ or Rust raise other types of errors
                message, advice = os.strerror(errno.ENOSPC), PATH_ADVICE
            elif isinstance(cause, ConnectionError | TimeoutError) or type(cause).__module__.startswith("requests."):
                message, advice = first_line(cause), NETWORK_ADVICE
            else:
                continue
            log.debug("error of the operating system", exc_info=error)
            raise click.ClickException(f"{message}. {advice}, then run again; finished stages are kept.") from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then the chain of errors that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
