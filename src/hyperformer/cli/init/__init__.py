"""The command `init`: look at files of labelled texts, and write an environment that trains on them."""

from hyperformer.cli.init.command import add_init_command

__all__ = ["add_init_command"]
