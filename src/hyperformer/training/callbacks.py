"""Callbacks of the training loop: progress, curves, random state, and checksums of resume states."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from transformers import TrainerCallback

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.progress import progress_bar
from hyperformer.model.tensors import trained_tensors
from hyperformer.training.batches import TrainingRow
from hyperformer.training.distributed import all_gather
from hyperformer.training.states import complete_state

log = logging.getLogger(__name__)
DIVERGENCE_ADVICE = "Use a lower learning_rate, a longer warm-up or precision: fp32."
Curve = Callable[[int, dict[str, float]], None]
"""A function (step, values by name) that records the values."""


class TaskLosses:
    """Sums of the losses of each task since the last call of `average_and_reset`."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks, self._sums = tasks, torch.zeros(2, len(tasks), dtype=torch.float64)

    def add(self, losses: Tensor, rows: Sequence[TrainingRow]) -> None:
        """Add the losses [B] of rows."""
        tasks = torch.tensor([row.task for row in rows])
        values = losses.detach().double().cpu()
        self._sums.index_add_(1, tasks, torch.stack([values, torch.ones_like(values)]))

    def average_and_reset(self, device: torch.device) -> dict[str, float]:
        """Return the mean loss, over all ranks, of every task that had rows and of all rows; then reset the sums."""
        sums = self._sums
        if dist.is_initialized():
            sums = sums.to(device)
            dist.all_reduce(sums)
        total, count = sums.cpu().tolist()
        self._sums = torch.zeros_like(self._sums)
        means = {f"loss/{task}": total[i] / count[i] for i, task in enumerate(self._tasks) if count[i]}
        return {"loss/mean": sum(total) / max(sum(count), 1.0), **means}


class Progress(TrainerCallback):
    """Shows a progress bar; at intervals, logs step, loss and remaining time, and adds a point to the curve."""

    def __init__(self, curve: Curve | None) -> None:
        self._curve = curve
        self._start = (0, 0.0)
        self._stack = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the progress bar."""
        self._start = (state.global_step, time.monotonic())
        self._bar = self._stack.enter_context(progress_bar("training", state.max_steps, state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the progress bar."""
        self._bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the progress bar."""
        self._stack.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Log a line, and add a point to the curve."""
        if not logs or "loss/mean" not in logs:
            return
        step, start_time = self._start
        remaining = (time.monotonic() - start_time) / (state.global_step - step) * (state.max_steps - state.global_step)
        minutes, seconds = divmod(round(remaining), 60)
        log.info(
            "step %d of %d  loss %.4f  %d:%02d left",
            state.global_step,
            state.max_steps,
            logs["loss/mean"],
            minutes,
            seconds,
        )
        if self._curve:
            self._curve(state.global_step, {name: logs[name] for name in select_curve_values(logs)})


def select_curve_values(line: dict[str, float]) -> list[str]:
    """Return the names of a log line's values that a curve records."""
    return [name for name in line if name == "learning_rate" or name.startswith("loss/")]


class RankSeed(TrainerCallback):
    """Seeds every rank differently; the first rank has the seed that a single process would have."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seed PyTorch with this rank's seed."""
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)


def check_finite(model: nn.Module, step: int) -> None:
    """Check that every trained weight is finite.

    Raises:
        HyperFormerError: if a weight is not finite.
    """
    for name, tensor in trained_tensors(model).items():
        if not tensor.isfinite().all():
            raise HyperFormerError(
                f"the weights are no longer finite after step {step} (the first is {name}). {DIVERGENCE_ADVICE}"
            )


class StateChecksums(TrainerCallback):
    """Writes the checksums that complete a new resume state, and removes the previous state."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the checksums of the new resume state, then remove the other states."""
        all_gather(None)  # a barrier: every rank has written its random state
        if args.process_index == 0:
            complete_state(self._state, state.global_step)
