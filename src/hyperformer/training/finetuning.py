"""Fine-tuning on a mixture of tasks."""

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
from hyperformer.data import Rows, Writer, read_first_rows, read_tokens, stream_rows, write_tokens
from hyperformer.model import MultiTaskModel, trained_tensors
from hyperformer.tasks import Task
from hyperformer.training.distributed import all_gather, get_rank, launch
from hyperformer.training.engine import Curve, TrainingJob, TrainingRow, check_finite, run_loop
from hyperformer.training.sampling import TaskSampler, compute_task_shares
from hyperformer.training.states import compute_fingerprint, damaged_file_error, lock_states, prepare_state
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

BEST = "best.safetensors"
HISTORY = "history.json"
CHUNK_ROWS = 1000  # rows that are encoded at once


def encode(rows: Path, settings: Tasks, backbone: BackboneSettings) -> Writer:
    """Return a function that writes the token ids of every task's training rows into a folder."""
    loaded = backbones.load(backbone)

    def encode_task(name: str, task: Task) -> Iterator[dict[str, list[int]]]:
        examples = map(task.make_example, stream_rows(rows, name, "train"))
        while chunk := list(islice(examples, CHUNK_ROWS)):
            yield from loaded.encode(chunk, backbone)

    return write_tokens({name: encode_task(name, task) for name, task in tasks.make_tasks(settings).items()})


class BestCheckpoint(TrainerCallback):
    """Validates at intervals, saves the tensors with the best mean and, if `patience` is set, stops early.

    The history of validations is saved with the resume states, so that a resumed run continues it. Each rank evaluates
    some of the tasks; the first rank writes the files.
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
        """Drop validations after the step that the run resumes from, and record the others in the curve."""
        self.history = [line for line in self.history if line["step"] <= state.global_step]
        self.show()

    def show(self) -> None:
        """Record all validations so far in the curve."""
        for line in self.history:
            self._show(line)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate if it is due; if `patience` is set, stop after that many validations without a better mean."""
        if state.global_step % self.settings.evaluate_every and state.global_step != state.max_steps:
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
        self.history.append(
            {"step": state.global_step, "mean": mean, **{name: result["mean"] for name, result in results.items()}}
        )
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
            save_file(trained_tensors(self.model), self.state / "best.new")
            (self.state / "best.new").replace(self.state / BEST)
        (self.state / "history.new").write_text(json.dumps(self.history))
        (self.state / "history.new").replace(self.state / HISTORY)

    def _show(self, line: Mapping[str, float]) -> None:
        if self.curve:
            self.curve(int(line["step"]), {f"validation/{name}": line[name] for name in line if name != "step"})


@dataclass(frozen=True)
class _Run:
    """The arguments that every process of a run receives."""

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
        """The tasks of each model."""
        return methods.group_tasks(self.method, list(self.settings.root))

    def state_folder(self, group: int) -> Path:
        """Return the folder of a model's resume states."""
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
    """Train the method's models, resuming an interrupted run of the same settings, rows and code.

    If a method trains several models, the steps, the warm-up steps and the steps between validations of each model are
    its tasks' share of the settings. Every task is then trained on about as many rows as in one model for all tasks.

    Args:
        rows: the folder of checked rows; the first `validation_rows` rows of each validation split serve to choose the
            checkpoint.
        tokens: the folder of encoded training rows.
        settings: the tasks.
        backbone: settings of the backbone.
        method: settings of the method.
        training: settings of the optimizer, its schedule and the processes.
        seed: seed of all random choices.
        states: the folder for resume states, which stay until `remove_states`.
        curves: returns a curve that records losses and validations; `curves` must be picklable. None: nothing is
            recorded.

    Returns:
        A function that writes a checkpoint, with the tensors of each model at its best mean validation metric; and a
        dictionary for each validation, with its `step` and, in percent, its `mean` and every task's mean metric. The
        n-th validations of several models are merged into one.

    Raises:
        HyperFormerError: if the loss or a weight is no longer finite, a process fails, another run uses `states`, a
            resume state is damaged, or `training.resume_from` is incompatible.
        SystemExit: with status 0, on every machine but the first.
    """
    blocks = {"tasks": settings, "backbone": backbone, "method": method, "training": training}
    inputs = {"rows": rows, "tokens": tokens, "weights": Path(backbone.path)}
    fingerprint = compute_fingerprint(blocks, inputs, seed)
    resume_from = Path(training.resume_from) if training.resume_from else None
    with lock_states(states) if training.machines == 1 else nullcontext():  # several machines share the folder
        state = prepare_state(states, fingerprint, resume_from)
        run = _Run(rows, tokens, settings, backbone, method, training, seed, state, curves)
        launch(_fit, run, training)
        model = MultiTaskModel(backbone, method, settings)
        folders = [run.state_folder(group) for group in range(len(run.groups))]
        model.load_trained([_read_best(folder / BEST) for folder in folders])
        return model.save_pretrained, _merge_histories([_read_history(folder / HISTORY) for folder in folders])


def _read_best(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise damaged_file_error(path, error) from None


def _read_history(path: Path) -> list[dict[str, float]]:
    try:
        history: list[dict[str, float]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise damaged_file_error(path, error) from None
    return history


def _fit(run: _Run) -> None:
    """Train every model of a run, in a single process or as one rank of several."""
    encoded = {name: read_tokens(run.tokens, name) for name in run.settings.root}
    counts = {name: len(tokens) for name, tokens in encoded.items()}
    weights = {name: task.weight for name, task in run.settings.root.items()}
    shares = compute_task_shares(counts, weights, run.training.temperature)
    curve = run.curves() if run.curves and get_rank() == 0 else None
    steps = 0
    for number, group in enumerate(run.groups):
        share = sum(shares[name] for name in group)
        if len(run.groups) > 1:
            log.info("model %d of %d: %s", number + 1, len(run.groups), ", ".join(group))
        set_seed(run.seed)
        model = MultiTaskModel(run.backbone, run.method, run.settings, run.training.label_smoothing, number)
        mixture = {name: (encoded[name], shares[name] / share) for name in group}
        training = _scale_steps(run.training, share)
        _fit_model(model, mixture, run, training, run.state_folder(number), curve and offset_curve(steps, curve))
        steps += training.steps


def offset_curve(steps: int, curve: Curve) -> Curve:
    """Return a curve that adds `steps`, the number of steps of earlier models, to every step."""
    return lambda step, values: curve(steps + step, values)


def _scale_steps(training: TrainingSettings, share: float) -> TrainingSettings:
    """Return the settings of a model that gets this share of the steps."""
    steps = {
        "steps": max(1, round(share * training.steps)),
        "warmup_steps": round(share * training.warmup_steps),
        "evaluate_every": max(1, round(share * training.evaluate_every)),
    }
    return training.model_copy(update=steps)


def _fit_model(
    model: MultiTaskModel,
    mixture: Mapping[str, tuple[Rows, float]],
    run: _Run,
    training: TrainingSettings,
    state: Path,
    curve: Curve | None,
) -> None:
    """Train one model on a mixture of its tasks; write its best tensors and its history into `state`."""
    validation = {name: read_first_rows(run.rows, name, "validation", training.validation_rows) for name in mixture}
    state.mkdir(exist_ok=True)
    if training.gradient_checkpointing:
        model.backbone.enable_gradient_checkpointing()
    best = BestCheckpoint(model, validation, training, state, curve)
    job = build_mixture_job(model, mixture, training, run.seed)
    if not run_loop(job, training, run.seed, state, [best], training.evaluate_every, curve, best.is_finished):
        best.show()


def _merge_histories(histories: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Merge the n-th validations of all models into one; a model with fewer validations repeats its last one."""
    merged = []
    for index in range(max(map(len, histories))):
        lines = [history[min(index, len(history) - 1)] for history in histories]
        scores = {name: line[name] for line in lines for name in line if name not in ("step", "mean")}
        step = sum(line["step"] for line in lines)
        merged.append({"step": step, "mean": float(np.mean(list(scores.values()))), **scores})
    return merged


def build_mixture_job(
    model: MultiTaskModel, mixture: Mapping[str, tuple[Rows, float]], settings: TrainingSettings, seed: int
) -> TrainingJob:
    """Return the training job of a model, whose batches have rows of all tasks in `mixture`.

    A batch is a pure function of (seed, step).

    Args:
        model: the model to train.
        mixture: each task's encoded training rows, and the task's share of the rows in batches.
        settings: training settings, of which the steps and the batch size are used.
        seed: seed of the batches.

    Raises:
        HyperFormerError: if a token id is not in the backbone's vocabulary.
    """
    tokens = {name: rows for name, (rows, _) in mixture.items()}
    for name, rows in tokens.items():
        _check_ids(name, rows, model.backbone.vocab_size)
    shares = [share for _, share in mixture.values()]
    sampler = TaskSampler(
        source_lengths(tokens), shares, seed, settings.steps, settings.batch_size, settings.batch_tokens
    )
    listed = ", ".join(f"{name} {share:.0%}" for name, share in zip(mixture, shares, strict=True))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info("training %d parameters on %d tasks (%s)", trained, len(mixture), listed)
    return build_job(model, tokens, sampler)


def _check_ids(task: str, tokens: Rows, vocabulary: int) -> None:
    """Check that all token ids are in the vocabulary.

    Raises:
        HyperFormerError: if a token id is not in the vocabulary.
    """
    for column in tokens.column_names:
        ends = pc.min_max(pc.list_flatten(tokens.data.column(column))).as_py()
        if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < vocabulary:
            invalid = ends["min"] if ends["min"] < 0 else ends["max"]
            raise HyperFormerError(
                f"task {task!r}: the training rows have the token id {invalid} in {column!r}; expected ids from 0 to "
                f"{vocabulary - 1}, the backbone's vocabulary. Encode the rows again with the backbone's tokenizer."
            )


def source_lengths(tokens: Mapping[str, Rows]) -> list[Any]:
    """Return, for each task, the number of source tokens of each of its encoded rows."""
    return [pc.list_value_length(rows.data.column("input_ids")).to_numpy() for rows in tokens.values()]


def build_job(model: MultiTaskModel, tokens: Mapping[str, Rows], sampler: TaskSampler) -> TrainingJob:
    """Return the training job of a model on the batches that a sampler draws from the tasks' encoded rows."""
    datasets = list(tokens.values())

    def rows(step: int) -> list[TrainingRow]:
        return [TrainingRow(datasets[task][row], task, row) for task, row in sampler[step]]

    def collate(rows: Sequence[TrainingRow]) -> dict[str, Tensor]:
        batch = model.backbone.collate([row.tokens for row in rows], [row.task for row in rows])
        return {"task_ids": batch.task_ids, **batch.tensors}

    return TrainingJob(model, rows, collate, list(tokens))
