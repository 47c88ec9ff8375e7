"""Validation during training: choose the best tensors, and stop early."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from transformers import TrainerCallback

from hyperformer import evaluation
from hyperformer.core.files import is_damage, replace_file, write_text
from hyperformer.data.storage import Rows
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.tensors import trained_tensors
from hyperformer.training.callbacks import Curve, check_finite
from hyperformer.training.diagnostics import GroupSizes
from hyperformer.training.distributed import all_gather, get_rank
from hyperformer.training.schedule import ScheduledSettings
from hyperformer.training.states import damaged_file_error

log = logging.getLogger(__name__)

BEST = "best.safetensors"
"""File of the tensors with the best validation."""
HISTORY = "history.json"
"""File of all validations."""
DIAGNOSTICS = "diagnostics"
"""Key of a validation's measures of the method's weights (`Method.diagnose`) and of `GroupSizes`."""


class BestCheckpoint(TrainerCallback):
    """Validates at intervals, saves the tensors with the best mean and, if `patience` is set, stops early.

    The history of validations is saved with the resume states, so that a resumed run continues it. Each rank evaluates
    some of the tasks; the first rank writes the files.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        validation: Mapping[str, Rows],
        settings: ScheduledSettings,
        state: Path,
        curve: Curve | None = None,
    ) -> None:
        self.model, self.validation, self.settings, self.state, self.curve = model, validation, settings, state, curve
        self.sizes = GroupSizes(model.parameter_groups(), self.is_due)
        path = state / HISTORY
        self.history: list[dict[str, Any]] = read_history(path) if path.is_file() else []

    def is_due(self, step: int, last: int) -> bool:
        """Return whether a validation follows after the step."""
        return step % self.settings.evaluate_every == 0 or step == last

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop validations after the step that the run resumes from, and record the others in the curve."""
        self.history = [line for line in self.history if line["step"] <= state.global_step]
        self.show()

    def show(self) -> None:
        """Record all validations so far in the curve."""
        for line in self.history:
            self._show(line)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate if it is due; if `patience` is set, stop after that many validations without a better mean."""
        if not self.is_due(state.global_step, state.max_steps):
            return
        check_finite(self.model, state.global_step)
        names = list(self.validation)[args.process_index :: args.world_size]
        local = {
            name: evaluation.evaluate(self.model.answer, self.model.tasks[name], self.validation[name], "validation")[0]
            for name in names
        }
        self.model.train()
        merged = {name: result for by_task in all_gather(local) for name, result in by_task.items()}
        results = {name: merged[name] for name in self.validation}
        mean = evaluation.average_tasks(results)
        best = max((line["mean"] for line in self.history), default=float("-inf"))
        scores = {name: result["mean"] for name, result in results.items()}
        diagnostics = {**self.model.method.diagnose(), **self.sizes.values}
        self.history.append({"step": state.global_step, "mean": mean, **scores, DIAGNOSTICS: diagnostics})
        collapsed = ", ".join(name for name, result in results.items() if result["collapsed"])
        note = ("  (best)" if mean > best else "") + (f"  one answer only: {collapsed}" if collapsed else "")
        log.info("step %d  validation mean %.2f%s", state.global_step, mean, note)
        if get_rank() == 0:
            self._write(mean > best)
        self._show(self.history[-1])
        if self.is_finished(state.global_step):
            log.info("no better mean in %d validations; stopping early", self.settings.patience)
            control.should_training_stop = True

    def is_finished(self, step: int) -> bool:
        """Return whether the last `patience` validations up to `step` brought no new best mean.

        The result is always False if `patience` is None.
        """
        means = [line["mean"] for line in self.history if line["step"] <= step]
        since = len(means) - 1 - int(np.argmax(means)) if means else 0
        return self.settings.patience is not None and since >= self.settings.patience

    def _write(self, best: bool) -> None:
        if best:
            with replace_file(self.state / BEST) as new:
                save_file(trained_tensors(self.model), new)
        write_text(self.state / HISTORY, json.dumps(self.history))

    def _show(self, line: Mapping[str, Any]) -> None:
        if self.curve:
            scores = {f"validation/{name}": value for name, value in line.items() if name not in ("step", DIAGNOSTICS)}
            self.curve(int(line["step"]), scores)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the validations that `BestCheckpoint` wrote."""
    try:
        history: list[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise
        raise damaged_file_error(path, error) from None
    return history
