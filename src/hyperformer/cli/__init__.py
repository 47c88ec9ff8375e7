"""The `hyperformer` command."""

from hyperformer.cli.main import main

__all__ = ["main"]
