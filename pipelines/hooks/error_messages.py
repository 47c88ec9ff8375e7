"""Short messages, without a traceback, for errors that the user can fix."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from kedro.framework.hooks import hook_impl

from hyperformer.core.errors import HyperFormerError

log = logging.getLogger(__name__)


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
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, HyperFormerError):
                raise click.ClickException(str(cause)) from None
        for cause in causes:
            if isinstance(cause, OSError) and cause.errno is not None:
                message = f"{cause.filename}: {cause.strerror}" if cause.filename is not None else cause.strerror
            elif os.strerror(errno.ENOSPC) in str(cause):  # libraries in C++ or Rust raise other types of errors
                message = os.strerror(errno.ENOSPC)
            else:
                continue
            log.debug("error of the operating system", exc_info=error)
            raise click.ClickException(
                f"{message}. Check the path, its permissions and free disk space, then run again; finished stages are "
                "kept."
            ) from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then the chain of errors that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
