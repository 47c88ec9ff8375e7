"""Training curves, written with DVCLive while a run trains, for `dvc plots` and `dvc exp show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperformer.core.errors import HyperFormerError


def start_curves(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Start new curves in `folder`, and return a function that logs values by name at a step.

    Raises:
        HyperFormerError: DVCLive cannot use the git repository around the folder.
    """
    from dvclive import Live
    from scmrepo.exceptions import SCMError

    try:
        live = Live(str(folder), report=None, save_dvc_exp=False, dvcyaml=None)
    except SCMError as error:
        raise HyperFormerError(
            f"cannot write the training curves ({error}). Create a first commit in this git repository, or remove .git."
        ) from None

    def log(step: int, values: dict[str, float]) -> None:
        live.step = step
        for name, value in values.items():
            live.log_metric(name, value)
        live.summary = _sorted(live.summary)  # a resumed run may log names in another order
        live.make_summary()

    return log


def _sorted(tree: Any) -> Any:
    """Return nested dictionaries with sorted keys; any other value is returned unchanged."""
    return {key: _sorted(tree[key]) for key in sorted(tree)} if isinstance(tree, dict) else tree
