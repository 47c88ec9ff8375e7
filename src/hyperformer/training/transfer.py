"""Few-shot transfer of a trained model to new tasks (HyperFormer, few-shot domain transfer).

No validation rows are used: the number of steps is set in advance, and the model after the last step is kept.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

import torch
from torch import Tensor
from transformers import set_seed

from hyperformer.core.cpus import use_threads
from hyperformer.core.errors import HyperFormerError
from hyperformer.data.storage import Rows, Writer, collect_rows, read_rows, sample_rows
from hyperformer.data.tokens import TOKEN_SCHEMA
from hyperformer.methods.base import Method
from hyperformer.model.checkpoint import Checkpoint, TrainingRecord, read_checkpoint
from hyperformer.model.inference import move_to_gpu
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.model.tensors import trained_tensors
from hyperformer.settings import Tasks, TransferSettings
from hyperformer.training.callbacks import Curve
from hyperformer.training.finetuning import offset_curve
from hyperformer.training.jobs import build_job, count_passes, log_passes, source_lengths
from hyperformer.training.sampling import TaskSampler
from hyperformer.training.states import compute_fingerprint, lock_states, prepare_state
from hyperformer.training.trainer import run_loop

log = logging.getLogger(__name__)

METHOD_PREFIX = "method."  # prefix of the names of a method's tensors in a model


def read_trained_checkpoint(settings: TransferSettings) -> Checkpoint:
    """Read the configuration of the trained checkpoint that is to be adapted.

    Raises:
        HyperFormerError: if there is no checkpoint, or it has several models (its method trains one per task).
    """
    checkpoint = read_checkpoint(settings.checkpoint, backbone=settings.backbone)
    if len(checkpoint.groups) > 1:
        raise HyperFormerError(
            f"transfer.checkpoint is {settings.checkpoint!r}, whose method {checkpoint.method.name} trains one model "
            "per task; expected one model for all tasks. Train with a multi-task method."
        )
    return checkpoint


def check_task_specific(settings: TransferSettings, name: str, method: Method) -> None:
    """Check that the method `name` has task-specific weights that training changes if only these are to be trained.

    Raises:
        HyperFormerError: if it has none, or their factor on the learning rate is 0.
    """
    if settings.train != "task_specific":
        return
    kinds = {method.parameter_kind(name) for name in method.task_specific_names()}
    if not kinds:
        raise HyperFormerError(
            f"transfer.train is 'task_specific', but {name} has no task-specific weights on this backbone. Use 'all'."
        )
    if not any(map(method.multiplier, kinds)):
        raise HyperFormerError(
            f"transfer.train is 'task_specific', but the task-specific weights of {name} ({', '.join(sorted(kinds))}) "
            "have the factor 0 in the checkpoint's learning_rate_multipliers. Use 'all'."
        )


def adapt(
    rows: Path,
    tasks: Tasks,
    settings: TransferSettings,
    seed: int,
    states: Path,
    curves: Callable[[], Curve] | None = None,
    threads: int | None = None,
) -> tuple[Writer, dict[str, str]]:
    """Adapt a trained model to each of the tasks independently.

    Args:
        rows: the folder of checked rows; `samples` rows of each task's train split are used, all if None.
        tasks: the new tasks.
        settings: settings of the transfer, such as the checkpoint, `samples` and `steps`.
        seed: seed of all random choices.
        states: the folder for resume states, which stay until `remove_states`.
        curves: returns a curve that records losses. None: nothing is recorded.
        threads: number of CPU threads, see `RunSettings.threads`.

    Returns:
        A function that writes the checkpoint of all tasks; and, for each task, the origin of its initial task-specific
        weights: the name of a trained task, `mean`, `shared adapter`, `random`, or `shared` if the method has no
        task-specific weights.

    Raises:
        HyperFormerError: if the trained checkpoint cannot be loaded or adapted, a task has fewer rows than `samples`,
            the loss or a weight is no longer finite, another run uses `states`, or a resume state cannot be read.
    """
    used = use_threads(threads)
    checkpoint = read_trained_checkpoint(settings)
    trained = MultiTaskModel.from_checkpoint(checkpoint, checkpoint.groups[0])
    check_task_specific(settings, checkpoint.method.name, trained.method)
    blocks = {"tasks": tasks, "backbone": trained.backbone_settings, "transfer": settings}
    fingerprint = compute_fingerprint(blocks, {"rows": rows, "checkpoint": Path(settings.checkpoint)}, seed, used)
    method, backbone = trained.method_settings.name, trained.backbone_settings.path
    log.info("adapting %s (%s on %s)", settings.checkpoint, method, backbone)
    with lock_states(states):
        state = prepare_state(states, fingerprint)
        models, passes, origins = _adapt_tasks(trained, rows, tasks, settings, seed, state, curves)
    models.record = TrainingRecord.of(settings.steps * len(passes), used, passes)
    return models.save_pretrained, origins


def _adapt_tasks(
    trained: MultiTaskModel,
    rows: Path,
    tasks: Tasks,
    settings: TransferSettings,
    seed: int,
    state: Path,
    curves: Callable[[], Curve] | None,
) -> tuple[TaskModels, dict[str, float], dict[str, str]]:
    """Return the models, and by task the number of passes and the origin of the initial weights."""
    groups = [[name] for name in tasks.root]
    curve = curves() if curves else None
    origins: dict[str, str] = {}
    passes: dict[str, float] = {}
    adapted: list[dict[str, Tensor]] = []
    for number, (name,) in enumerate(groups):
        set_seed(seed)
        model = move_to_gpu(
            MultiTaskModel(trained.backbone_settings, trained.method_settings, tasks, settings.label_smoothing, [name])
        )
        tokens = encode_samples(model, name, rows, settings, seed)
        origins[name] = initialize(model, trained, name, tokens, settings.initialize_from)
        log.info("adapting to %s on %d rows, initialized from %s", name, len(tokens), origins[name])
        task_curve = curve and offset_curve(number * settings.steps, curve)
        tensors, passes[name] = _fit(model, name, tokens, settings, seed, state / name, task_curve)
        adapted.append(tensors)
    return TaskModels.assemble(model, groups, adapted), passes, origins


def encode_samples(model: MultiTaskModel, task: str, rows: Path, settings: TransferSettings, seed: int) -> Rows:
    """Encode the samples of a task into token ids."""
    if settings.samples is None:
        samples = read_rows(rows, task, "train")
    else:
        samples = sample_rows(rows, task, "train", settings.samples, seed)
    examples = [model.tasks[task].make_example(row) for row in samples]
    seen = {example.label for example in examples}
    unseen = [answer for label, answer in enumerate(model.tasks[task].answers) if label not in seen]
    if unseen and model.tasks[task].numbers is None:
        log.warning("%s: none of the %d rows has the answer %s", task, len(examples), ", ".join(unseen))
    return collect_rows(model.backbone.encode_examples(examples, model.backbone_settings), TOKEN_SCHEMA)


def initialize(model: MultiTaskModel, trained: MultiTaskModel, task: str, tokens: Rows, start: str) -> str:
    """Copy the trained tensors into the model of a new task, and return the origin of its task-specific weights.

    The nearest trained task is used only if its loss is lower than that of guessing; otherwise the mean is used. If the
    method adds generated weights to a shared adapter, a task that starts from the mean has the shared adapter alone.

    Args:
        model: the new task's model.
        trained: the trained model.
        task: the new task.
        tokens: the new task's encoded samples; the nearest trained task is the one with the lowest loss on them.
        start: the value of `initialize_from`.
    """
    tensors = trained_tensors(trained)
    specific = {METHOD_PREFIX + name for name in trained.method.task_specific_names()}
    if not specific:
        _copy_into(model, tensors)
        return "shared"
    if start == "random":
        _copy_into(model, {name: tensor for name, tensor in tensors.items() if name not in specific})
        return "random"
    if start == "nearest" and (nearest := _copy_nearest(model, trained, task, tokens, specific)):
        return nearest
    means = {name: t.mean(0, keepdim=True) if name in specific else t for name, t in tensors.items()}
    offsets = [METHOD_PREFIX + name for name in trained.method.offset_names()]
    _copy_into(model, {**means, **{name: torch.zeros_like(means[name]) for name in offsets}})
    return "shared adapter" if offsets else "mean"


def _copy_nearest(
    model: MultiTaskModel, trained: MultiTaskModel, task: str, tokens: Rows, specific: Set[str]
) -> str | None:
    """Copy the weights of the nearest trained task, and return it; None if its loss is not below that of guessing."""
    tensors = trained_tensors(trained)

    def tensors_of(number: int) -> dict[str, Tensor]:
        return {name: t[number : number + 1] if name in specific else t for name, t in tensors.items()}

    losses = {}
    for number, name in enumerate(trained.tasks):
        _copy_into(model, tensors_of(number))
        losses[name] = _loss(model, tokens)
    nearest = min(losses, key=lambda name: losses[name])
    log.info("loss of the samples: %s", ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()))
    guess = compute_guess_loss(tokens["labels"]) if model.tasks[task].answers else math.inf
    if losses[nearest] >= guess:
        log.info(
            "%s: the loss of the nearest trained task, %s, is %.3f, and that of guessing is %.3f; using the mean of "
            "all trained tasks instead",
            *(task, nearest, losses[nearest], guess),
        )
        return None
    _copy_into(model, tensors_of(list(losses).index(nearest)))
    return nearest


def compute_guess_loss(answers: Iterable[Sequence[int]]) -> float:
    """Return the mean loss of rows if every answer's probability is its share of the rows.

    The loss of a row is a mean over the tokens of its answer, as in `Backbone.loss`.

    Args:
        answers: the token ids of each row's answer.
    """
    counts = Counter(map(tuple, answers))
    rows = counts.total()
    return sum(count / rows * -math.log(count / rows) / len(answer) for answer, count in counts.items())


@torch.no_grad()
def _copy_into(model: MultiTaskModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model; if heads have different numbers of outputs, copy the outputs that both have."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        common = tuple(slice(min(a, b)) for a, b in zip(parameters[name].shape, tensor.shape, strict=True))
        parameters[name][common] = tensor[common].to(parameters[name].device)


@torch.no_grad()
def _loss(model: MultiTaskModel, tokens: Rows, batch_size: int = 64) -> float:
    """Return the mean loss of a task's rows, without label smoothing."""
    model.eval()
    smoothing, model.label_smoothing = model.label_smoothing, 0.0
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(tokens), batch_size):
        rows = [tokens[i] for i in range(start, min(start + batch_size, len(tokens)))]
        tensors = {name: tensor.to(device) for name, tensor in model.backbone.collate(rows).items()}
        total += float(model.row_losses(torch.zeros(len(rows), dtype=torch.long, device=device), tensors).sum())
    model.label_smoothing = smoothing
    return total / len(tokens)


def _fit(
    model: MultiTaskModel,
    task: str,
    tokens: Rows,
    settings: TransferSettings,
    seed: int,
    state: Path,
    curve: Curve | None,
) -> tuple[dict[str, Tensor], float]:
    """Train the model of one task to the last step; return its trained tensors and the passes over its rows."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    specific = {METHOD_PREFIX + name for name in model.method.task_specific_names()}
    if settings.train == "task_specific":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in specific)
    state.mkdir(exist_ok=True)
    rows = {task: tokens}
    sampler = TaskSampler(source_lengths(rows), [1.0], seed, settings.steps, settings.batch_size)
    if settings.gradient_checkpointing:
        model.backbone.enable_gradient_checkpointing()
    job = build_job(model, rows, sampler)
    log_passes(job, settings.steps, {task: len(tokens)})
    run_loop(job, settings, seed, state, curve=curve)
    for parameter in trained:
        parameter.requires_grad_()
    tensors = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
    return tensors, count_passes(job, settings.steps)[task]
