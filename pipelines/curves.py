"""Curves of a run as they come, for `dvc plots` and `dvc exp show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def started(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Begins anew in `folder`; what takes the values at a step, by name, writes them as DVCLive does."""
    from dvclive import Live

    live = Live(str(folder), report=None, save_dvc_exp=False, dvcyaml=None)

    def show(step: int, values: dict[str, float]) -> None:
        live.step = step
        for name, value in values.items():
            live.log_metric(name, value)
        live.make_summary()

    return show
