"""Checks before any node runs, and one sentence instead of a traceback for a user's mistake."""

from __future__ import annotations

from typing import Any

import click
from kedro.framework.hooks import hook_impl

from hyperformer.config import check
from hyperformer.types import HyperFormerError


class UserMistakes:
    """Refuses a parameter tree that `hyperformer.config` does not know, and turns known errors into plain messages."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        try:
            check(context.config_loader["parameters"])
        except HyperFormerError as error:
            raise click.ClickException(str(error)) from None

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, HyperFormerError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise click.ClickException(str(cause)) from None
