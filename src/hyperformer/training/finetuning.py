"""Fine-tuning over a mixture of tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, set_seed

from hyperformer import backbones, evaluation, methods, tasks
from hyperformer.config import BackboneSettings, MethodSettings, Tasks, TrainingSettings
from hyperformer.data import Rows, Writer, first_rows, read_tokens, stream_rows, write_tokens
from hyperformer.model import MultiTaskModel, trained_tensors
from hyperformer.tasks import Task
from hyperformer.training.distributed import gathered, launch, rank
from hyperformer.training.engine import Curve, Row, Work, check_finite, run_loop
from hyperformer.training.sampling import TaskSampler, task_shares
from hyperformer.training.states import alone, damaged, fresh_state, work_of
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

BEST, HISTORY = "best.safetensors", "history.json"
CHUNK = 1000  # rows that are encoded at once


def encode(rows: Path, settings: Tasks, backbone: BackboneSettings) -> Writer:
    """What writes the token ids of every task's training rows."""
    loaded = backbones.load(backbone)

    def encoded(name: str, task: Task) -> Iterator[dict[str, list[int]]]:
        examples = map(task.example, stream_rows(rows, name, "train"))
        while chunk := list(islice(examples, CHUNK)):
            yield from loaded.encode(chunk, backbone)

    return write_tokens({name: encoded(name, task) for name, task in tasks.make(settings).items()})


class BestCheckpoint(TrainerCallback):
    """Validates every so often, keeps the trained tensors with the best mean metric, and stops when patience ends.

    What it knows is written beside the resume states, so that a resumed run goes on with it. Ranks share the tasks out;
    the first one writes.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        validation: Mapping[str, Rows],
        settings: TrainingSettings,
        state: Path,
        curve: Curve | None = None,
    ) -> None:
        self.model, self.validation, self.settings, self.state, self.curve = model, validation, settings, state, curve
        path = state / HISTORY
        self.history: list[dict[str, float]] = _read_history(path) if path.is_file() else []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.history = [line for line in self.history if line["step"] <= state.global_step]
        self.show()

    def show(self) -> None:
        """Gives the curve what is known so far."""
        for line in self.history:
            self._show(line)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.settings.evaluate_every and state.global_step != state.max_steps:
            return
        check_finite(self.model, state.global_step)
        own = list(self.validation)[args.process_index :: args.world_size]
        found = {
            name: evaluation.evaluate(self.model.answer, self.model.tasks[name], self.validation[name], "validation")[0]
            for name in own
        }
        self.model.train()
        merged = {name: result for part in gathered(found) for name, result in part.items()}
        results = {name: merged[name] for name in self.validation}
        mean = evaluation.mean_of(results)
        best = max((line["mean"] for line in self.history), default=float("-inf"))
        self.history.append(
            {"step": state.global_step, "mean": mean, **{name: result["mean"] for name, result in results.items()}}
        )
        collapsed = ", ".join(name for name, result in results.items() if result["collapsed"])
        said = ("  (best)" if mean > best else "") + (f"  one answer only: {collapsed}" if collapsed else "")
        log.info("step %d  validation mean %.2f%s", state.global_step, mean, said)
        if rank() == 0:
            self._write(mean > best)
        self._show(self.history[-1])
        if self.ended(state.global_step):
            log.info("no better mean for %d validations; stopping", self.settings.patience)
            control.should_training_stop = True

    def ended(self, step: int) -> bool:
        """Whether there was no better mean for as many validations as patience allows, up to a step."""
        means = [line["mean"] for line in self.history if line["step"] <= step]
        since = len(means) - 1 - int(np.argmax(means)) if means else 0
        return self.settings.patience is not None and since >= self.settings.patience

    def _write(self, best: bool) -> None:
        if best:
            save_file(trained_tensors(self.model), self.state / "best.new")
            (self.state / "best.new").replace(self.state / BEST)
        (self.state / "history.new").write_text(json.dumps(self.history))
        (self.state / "history.new").replace(self.state / HISTORY)

    def _show(self, line: Mapping[str, float]) -> None:
        if self.curve:
            self.curve(int(line["step"]), {f"validation/{name}": line[name] for name in line if name != "step"})


@dataclass(frozen=True)
class _Run:
    """What every process of a run is given."""

    rows: Path
    tokens: Path
    settings: Tasks
    backbone: BackboneSettings
    method: MethodSettings
    training: TrainingSettings
    seed: int
    state: Path
    curves: Callable[[], Curve] | None

    @property
    def groups(self) -> list[list[str]]:
        return methods.groups(self.method, list(self.settings.root))

    def state_of(self, group: int) -> Path:
        """The folder of a model's resume states."""
        return self.state / str(group + 1)


def train(
    rows: Path,
    tokens: Path,
    settings: Tasks,
    backbone: BackboneSettings,
    method: MethodSettings,
    training: TrainingSettings,
    seed: int,
    states: Path,
    curves: Callable[[], Curve] | None = None,
) -> tuple[Writer, list[dict[str, float]]]:
    """Trains the method's models, from where an interrupted run of the same settings, rows and code stopped.

    Where there are several, each takes its tasks' share of the steps, of the warm-up and of the steps between
    validations, so that every task sees as many rows as in one model for all.

    Args:
        rows: the folder of checked rows; the first `validation_rows` of each validation split choose the checkpoint.
        tokens: the folder of encoded training rows.
        states: a folder for resume states of training, outside of what is published; they stay until `remove_states`.
        curves: starts what shows losses and validations as they come; it must be possible to pickle it.
    Returns:
        What writes the checkpoint, for each model that of the best mean validation metric; and a line a validation:
        step, mean, and every task's mean metric in percent.
    Raises:
        HyperFormerError: the loss is no longer finite, a process died, or `training.resume_from` is of other work.
        SystemExit: with 0, on a machine that only helped another.
    """
    parts = {"tasks": settings, "backbone": backbone, "method": method, "training": training}
    work = work_of(parts, {"rows": rows, "tokens": tokens, "weights": Path(backbone.path)}, seed)
    given = Path(training.resume_from) if training.resume_from else None
    with alone(states) if training.machines == 1 else nullcontext():  # machines work on one folder together
        state = fresh_state(states, work, given)
        run = _Run(rows, tokens, settings, backbone, method, training, seed, state, curves)
        launch(_fit, run, training)
        model = MultiTaskModel(backbone, method, settings)
        places = [run.state_of(group) for group in range(len(run.groups))]
        model.assemble([_read_best(place / BEST) for place in places])
        return model.save_pretrained, _merged([_read_history(place / HISTORY) for place in places])


def _read_best(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None


def _read_history(path: Path) -> list[dict[str, float]]:
    try:
        found: list[dict[str, float]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
    return found


def _fit(run: _Run) -> None:
    """Trains every model of a run to its end, as one process or as a rank of several."""
    encoded = {name: read_tokens(run.tokens, name) for name in run.settings.root}
    counts = {name: len(found) for name, found in encoded.items()}
    weights = {name: task.weight for name, task in run.settings.root.items()}
    shares = task_shares(counts, weights, run.training.temperature)
    curve = run.curves() if run.curves and rank() == 0 else None
    done = 0
    for number, group in enumerate(run.groups):
        share = sum(shares[name] for name in group)
        if len(run.groups) > 1:
            log.info("model %d of %d: %s", number + 1, len(run.groups), ", ".join(group))
        set_seed(run.seed)
        model = MultiTaskModel(run.backbone, run.method, run.settings, run.training.label_smoothing, number)
        parts = {name: (encoded[name], shares[name] / share) for name in group}
        training = _part(run.training, share)
        _fit_one(model, parts, run, training, run.state_of(number), curve and after(done, curve))
        done += training.steps


def after(steps: int, curve: Curve) -> Curve:
    """A curve whose steps begin after those of the models before."""
    return lambda step, values: curve(steps + step, values)


def _part(training: TrainingSettings, share: float) -> TrainingSettings:
    """The settings of a model that takes this share of the steps."""
    steps = {
        "steps": max(1, round(share * training.steps)),
        "warmup_steps": round(share * training.warmup_steps),
        "evaluate_every": max(1, round(share * training.evaluate_every)),
    }
    return training.model_copy(update=steps)


def _fit_one(
    model: MultiTaskModel,
    parts: Mapping[str, tuple[Rows, float]],
    run: _Run,
    training: TrainingSettings,
    state: Path,
    curve: Curve | None,
) -> None:
    """Trains one model on the tokens and shares of its tasks; its best tensors and its history come into `state`."""
    validation = {name: first_rows(run.rows, name, "validation", training.validation_rows) for name in parts}
    state.mkdir(exist_ok=True)
    if training.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    best = BestCheckpoint(model, validation, training, state, curve)
    work = mixed_batches(model, parts, training, run.seed)
    if not run_loop(work, training, run.seed, state, [best], training.evaluate_every, curve, best.ended):
        best.show()


def _merged(histories: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The validations of several models as if they had gone on together: the n-th of each in one line."""
    merged = []
    for place in range(max(map(len, histories))):
        lines = [history[min(place, len(history) - 1)] for history in histories]
        scores = {name: line[name] for line in lines for name in line if name not in ("step", "mean")}
        step = sum(line["step"] for line in lines)
        merged.append({"step": step, "mean": float(np.mean(list(scores.values()))), **scores})
    return merged


def mixed_batches(
    model: MultiTaskModel, parts: Mapping[str, tuple[Rows, float]], settings: TrainingSettings, seed: int
) -> Work:
    """Training a model on batches of all tasks mixed; a batch is a pure function of (seed, step).

    Args:
        parts: each task's encoded training rows, and its share of the batches.
    """
    tokens = {name: part for name, (part, _) in parts.items()}
    for name, part in tokens.items():
        _check_ids(name, part, model.backbone.vocabulary)
    shares = [share for _, share in parts.values()]
    sampler = TaskSampler(lengths(tokens), shares, seed, settings.steps, settings.batch_size, settings.batch_tokens)
    said = ", ".join(f"{name} {share:.0%}" for name, share in zip(parts, shares, strict=True))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info("training %d parameters on %d tasks (%s)", trained, len(parts), said)
    return sampled(model, tokens, sampler)


def _check_ids(task: str, tokens: Rows, vocabulary: int) -> None:
    """Refuse token ids that the model does not know.

    Raises:
        HyperFormerError: there are some.
    """
    for column in tokens.column_names:
        ends = pc.min_max(pc.list_flatten(tokens.data.column(column))).as_py()
        if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < vocabulary:
            odd = ends["min"] if ends["min"] < 0 else ends["max"]
            raise HyperFormerError(
                f"task {task!r}: the training rows hold the token id {odd} in {column!r}; expected ids from 0 to "
                f"{vocabulary - 1}, which the backbone knows. Encode the rows again with the backbone's own tokenizer."
            )


def lengths(tokens: Mapping[str, Rows]) -> list[Any]:
    """Source tokens of each task's encoded rows."""
    return [pc.list_value_length(part.data.column("input_ids")).to_numpy() for part in tokens.values()]


def sampled(model: MultiTaskModel, tokens: Mapping[str, Rows], sampler: TaskSampler) -> Work:
    """Training a model on the batches of a sampler over each task's encoded rows."""
    parts = list(tokens.values())

    def rows(step: int) -> list[Row]:
        return [Row(parts[task][row], task, row) for task, row in sampler[step]]

    def collate(batch: Sequence[Row]) -> dict[str, Tensor]:
        made = model.backbone.collate([row.tokens for row in batch], [row.task for row in batch])
        return {"task_ids": made.task_ids, **made.tensors}

    return Work(model, rows, collate, list(tokens))
