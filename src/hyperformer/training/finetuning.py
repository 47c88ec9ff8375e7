"""Fine-tuning on a mixture of tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import set_seed

from hyperformer import backbones, methods, tasks
from hyperformer.core.cpus import use_threads
from hyperformer.core.files import is_damage
from hyperformer.data.storage import Rows, Writer, read_first_rows, stream_rows
from hyperformer.data.tokens import read_tokens, write_tokens
from hyperformer.methods.diagnostics import COLLAPSED_SHARE, is_collapsed
from hyperformer.model.checkpoint import TrainingRecord
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.settings import BackboneSettings, MethodSettings, Tasks, TrainingSettings
from hyperformer.tasks import Task
from hyperformer.training.callbacks import Curve
from hyperformer.training.distributed import get_rank, launch
from hyperformer.training.jobs import build_mixture_job, count_passes, source_lengths
from hyperformer.training.records import merge_records, read_record, write_record
from hyperformer.training.sampling import compute_task_shares, raise_shares
from hyperformer.training.schedule import ScheduledSettings, count_steps, schedule_training
from hyperformer.training.states import compute_fingerprint, damaged_file_error, lock_states, prepare_state
from hyperformer.training.trainer import run_loop
from hyperformer.training.validation import BEST, DIAGNOSTICS, HISTORY, BestCheckpoint, read_history

log = logging.getLogger(__name__)

COLLAPSE_ADVICE = "Set the method's shared_adapter and embeddings: product (docs/methods.md), or train longer."
CHUNK_ROWS = 1000  # rows that are encoded at once


def encode(rows: Path, settings: Tasks, backbone: BackboneSettings) -> Writer:
    """Return a function that writes the token ids of every task's training rows into a folder."""
    loaded = backbones.load(backbone)

    def encode_task(name: str, task: Task) -> Iterator[dict[str, list[int]]]:
        examples = map(task.make_example, stream_rows(rows, name, "train"))
        while chunk := list(islice(examples, CHUNK_ROWS)):
            yield from loaded.encode_examples(chunk, backbone)

    return write_tokens({name: encode_task(name, task) for name, task in tasks.make_tasks(settings).items()})


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
    threads: int

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
    threads: int | None = None,
) -> tuple[Writer, list[dict[str, Any]]]:
    """Train the method's models, resuming an interrupted run of the same settings, rows, threads and code.

    If a method trains several models, the steps, the warm-up steps and the steps between validations of each model are
    its tasks' share of the schedule. Every task is then trained on about as many rows as in one model for all tasks.

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
        threads: number of CPU threads, see `RunSettings.threads`.

    Returns:
        A function that writes a checkpoint, with the tensors of each model at its best mean validation metric; and a
        dictionary for each validation, with its `step`, in percent its `mean` and every task's mean metric, and
        `diagnostics` of the weights. The n-th validations of several models are merged into one, without diagnostics.

    Raises:
        HyperFormerError: if the loss or a weight is no longer finite, a process fails, another run uses `states`, a
            resume state is damaged, or `training.resume_from` is incompatible.
        SystemExit: with status 0, on every machine but the first.
    """
    used = use_threads(threads)
    blocks = {"tasks": settings, "backbone": backbone, "method": method, "training": training}
    inputs = {"rows": rows, "tokens": tokens, "weights": Path(backbone.path)}
    fingerprint = compute_fingerprint(blocks, inputs, seed, used if training.machines == 1 else threads)
    resume_from = Path(training.resume_from) if training.resume_from else None
    with lock_states(states) if training.machines == 1 else nullcontext():  # several machines share the folder
        state = prepare_state(states, fingerprint, resume_from)
        run = _Run(rows, tokens, settings, backbone, method, training, seed, state, curves, used)
        launch(_fit, run, training, used)
        model = MultiTaskModel(backbone, method, settings, group=run.groups[0])
        folders = [run.state_folder(group) for group in range(len(run.groups))]
        models = TaskModels.assemble(model, run.groups, (_read_best(folder / BEST) for folder in folders))
        models.record = merge_records([read_record(folder) for folder in folders])
        return models.save_pretrained, _merge_histories([read_history(folder / HISTORY) for folder in folders])


def _read_best(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        if not is_damage(error):
            raise
        raise damaged_file_error(path, error) from None


def _fit(run: _Run) -> None:
    """Train every model of a run, in a single process or as one rank of several."""
    encoded = {name: read_tokens(run.tokens, name) for name in run.settings.root}
    size, shares = _compute_shares(run, encoded)
    curve = run.curves() if run.curves and get_rank() == 0 else None
    steps = 0
    for number, group in enumerate(run.groups):
        share = sum(shares[name] for name in group)
        if len(run.groups) > 1:
            log.info("model %d of %d: %s", number + 1, len(run.groups), ", ".join(group))
        set_seed(run.seed)
        model = MultiTaskModel(run.backbone, run.method, run.settings, run.training.label_smoothing, group)
        mixture = {name: (encoded[name], shares[name] / share) for name in group}
        training = schedule_training(run.training, size, share)
        _fit_model(model, mixture, run, training, run.state_folder(number), curve and offset_curve(steps, curve))
        steps += training.steps


def offset_curve(steps: int, curve: Curve) -> Curve:
    """Return a curve that adds `steps`, the number of steps of earlier models, to every step."""
    return lambda step, values: curve(steps + step, values)


def _compute_shares(run: _Run, encoded: Mapping[str, Rows]) -> tuple[int, dict[str, float]]:
    """Return the size of an epoch, in rows or source tokens, and each task's share of the sampled rows."""
    training = run.training
    counts = {name: len(tokens) for name, tokens in encoded.items()}
    weights = {name: task.weight for name, task in run.settings.root.items()}
    shares = compute_task_shares(counts, weights, training.temperature)
    if training.batch_size is not None:
        size = sum(counts.values())
        draws: float = count_steps(training, size) * training.batch_size
    else:
        assert training.batch_tokens is not None  # checked by the settings
        lengths = dict(zip(encoded, source_lengths(encoded), strict=True))
        size = sum(int(task_lengths.sum()) for task_lengths in lengths.values())
        mean_tokens = sum(share * float(lengths[name].mean()) for name, share in shares.items())
        draws = count_steps(training, size) * training.batch_tokens / mean_tokens
    minimums = {name: min(training.min_passes * count / draws, 1 / len(counts)) for name, count in counts.items()}
    return size, raise_shares(shares, minimums)


def _fit_model(
    model: MultiTaskModel,
    mixture: Mapping[str, tuple[Rows, float]],
    run: _Run,
    training: ScheduledSettings,
    state: Path,
    curve: Curve | None,
) -> None:
    """Train one model on a mixture of its tasks; write its best tensors, history and record into `state`."""
    validation = {name: read_first_rows(run.rows, name, "validation", training.validation_rows) for name in mixture}
    state.mkdir(exist_ok=True)
    if training.gradient_checkpointing:
        model.backbone.enable_gradient_checkpointing()
    best = BestCheckpoint(model, validation, training, state, curve)
    job = build_mixture_job(model, mixture, training, run.seed)
    callbacks = [best.sizes, best]
    if not run_loop(job, training, run.seed, state, callbacks, training.evaluate_every, curve, best.is_finished):
        best.show()
    if get_rank() == 0:
        last = read_history(state / HISTORY)[-1]  # the last step is always validated
        if is_collapsed(last[DIAGNOSTICS]):
            log.warning(
                "the tasks have nearly the same adapter: %.1f %% of it is task-specific; expected at least %.0f %%. %s",
                *(100 * last[DIAGNOSTICS]["task_share"], 100 * COLLAPSED_SHARE, COLLAPSE_ADVICE),
            )
        steps = int(last["step"])
        write_record(state, TrainingRecord.of(steps, run.threads, count_passes(job, steps)))


def _merge_histories(histories: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the n-th validations of all models into one; a model with fewer validations repeats its last one."""
    if len(histories) == 1:
        return histories[0]
    merged = []
    for index in range(max(map(len, histories))):
        lines = [history[min(index, len(history) - 1)] for history in histories]
        scores = {name: line[name] for line in lines for name in line if name not in ("step", "mean", DIAGNOSTICS)}
        step = sum(line["step"] for line in lines)
        merged.append({"step": step, "mean": float(np.mean(list(scores.values()))), **scores})
    return merged
