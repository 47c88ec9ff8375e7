"""Everything about a run that can be refused before it starts."""

from hyperformer.preflight.run import check_run

__all__ = ["check_run"]
