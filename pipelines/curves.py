"""Curves of a run as they come, for `dvc plots` and `dvc exp show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperformer.types import HyperFormerError


def started(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Begins anew in `folder`; what takes the values at a step, by name, writes them as DVCLive does."""
    from dvclive import Live
    from scmrepo.exceptions import SCMError

    try:
        live = Live(str(folder), report=None, save_dvc_exp=False, dvcyaml=None)
    except SCMError as error:
        raise HyperFormerError(
            f"the curves cannot be written ({error}); commit once in this git repository, or remove its .git"
        ) from None

    def show(step: int, values: dict[str, float]) -> None:
        live.step = step
        for name, value in values.items():
            live.log_metric(name, value)
        live.summary = _sorted(live.summary)  # the same bytes, in whatever order a resumed run learns of its values
        live.make_summary()

    return show


def _sorted(tree: Any) -> Any:
    """A tree of dictionaries, its keys sorted."""
    return {key: _sorted(tree[key]) for key in sorted(tree)} if isinstance(tree, dict) else tree
