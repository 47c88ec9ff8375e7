"""Few-shot transfer of a trained model to new tasks (HyperFormer, few-shot domain transfer).

No validation rows are used: the number of steps is set in advance, and the model after the last step is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import set_seed

from hyperformer.core.errors import HyperFormerError
from hyperformer.data.storage import Rows, Writer, collect_rows, read_rows, sample_rows
from hyperformer.data.tokens import TOKEN_SCHEMA
from hyperformer.methods.base import Method
from hyperformer.model.checkpoint import Checkpoint, read_checkpoint
from hyperformer.model.inference import move_to_gpu
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.task_models import TaskModels
from hyperformer.model.tensors import trained_tensors
from hyperformer.settings import Tasks, TransferSettings
from hyperformer.training.callbacks import Curve
from hyperformer.training.finetuning import offset_curve
from hyperformer.training.jobs import build_job, source_lengths
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
    """Check that the method `name` has task-specific weights if only these are to be trained.

    Raises:
        HyperFormerError: if it has none.
    """
    if settings.train == "task_specific" and not method.task_specific_names():
        raise HyperFormerError(
            f"transfer.train is 'task_specific', but {name} has no task-specific weights on this backbone. Use 'all'."
        )


def adapt(
    rows: Path,
    tasks: Tasks,
    settings: TransferSettings,
    seed: int,
    states: Path,
    curves: Callable[[], Curve] | None = None,
) -> tuple[Writer, dict[str, str]]:
    """Adapt a trained model to each of the tasks independently.

    Args:
        rows: the folder of checked rows; `samples` rows of each task's train split are used, all if None.
        tasks: the new tasks.
        settings: settings of the transfer, such as the checkpoint, `samples` and `steps`.
        seed: seed of all random choices.
        states: the folder for resume states, which stay until `remove_states`.
        curves: returns a curve that records losses. None: nothing is recorded.

    Returns:
        A function that writes the checkpoint of all tasks; and, for each task, the origin of its initial task-specific
        weights: the name of a trained task, `mean`, `random`, or `shared` if the method has no task-specific weights.

    Raises:
        HyperFormerError: if the trained checkpoint cannot be loaded or adapted, a task has fewer rows than `samples`,
            the loss or a weight is no longer finite, another run uses `states`, or a resume state cannot be read.
    """
    checkpoint = read_trained_checkpoint(settings)
    trained = MultiTaskModel.from_checkpoint(checkpoint, checkpoint.groups[0])
    check_task_specific(settings, checkpoint.method.name, trained.method)
    blocks = {"tasks": tasks, "backbone": trained.backbone_settings, "transfer": settings}
    fingerprint = compute_fingerprint(blocks, {"rows": rows, "checkpoint": Path(settings.checkpoint)}, seed)
    method, backbone = trained.method_settings.name, trained.backbone_settings.path
    log.info("adapting %s (%s on %s)", settings.checkpoint, method, backbone)
    with lock_states(states):
        return _adapt_tasks(trained, rows, tasks, settings, seed, prepare_state(states, fingerprint), curves)


def _adapt_tasks(
    trained: MultiTaskModel,
    rows: Path,
    tasks: Tasks,
    settings: TransferSettings,
    seed: int,
    state: Path,
    curves: Callable[[], Curve] | None,
) -> tuple[Writer, dict[str, str]]:
    groups = [[name] for name in tasks.root]
    curve = curves() if curves else None
    origins: dict[str, str] = {}
    adapted: list[dict[str, Tensor]] = []
    for number, (name,) in enumerate(groups):
        set_seed(seed)
        model = move_to_gpu(
            MultiTaskModel(trained.backbone_settings, trained.method_settings, tasks, settings.label_smoothing, [name])
        )
        tokens = encode_samples(model, name, rows, settings, seed)
        origins[name] = initialize(model, trained, tokens, settings.initialize_from)
        log.info("adapting to %s on %d rows, initialized from %s", name, len(tokens), origins[name])
        task_curve = curve and offset_curve(number * settings.steps, curve)
        adapted.append(_fit(model, name, tokens, settings, seed, state / name, task_curve))
    return TaskModels.assemble(model, groups, adapted).save_pretrained, origins


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


def initialize(model: MultiTaskModel, trained: MultiTaskModel, tokens: Rows, start: str) -> str:
    """Copy the trained tensors into the model of a new task, and return the origin of its task-specific weights.

    Args:
        model: the new task's model.
        trained: the trained model.
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
    if start == "mean":
        _copy_into(model, {name: t.mean(0, keepdim=True) if name in specific else t for name, t in tensors.items()})
        return "mean"

    def tensors_of(number: int) -> dict[str, Tensor]:
        return {name: t[number : number + 1] if name in specific else t for name, t in tensors.items()}

    losses = {}
    for number, task in enumerate(trained.tasks):
        _copy_into(model, tensors_of(number))
        losses[task] = _loss(model, tokens)
    nearest = min(losses, key=lambda task: losses[task])
    log.info("loss of the samples: %s", ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items()))
    _copy_into(model, tensors_of(list(losses).index(nearest)))
    return nearest


@torch.no_grad()
def _copy_into(model: MultiTaskModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model; if heads have different numbers of outputs, copy the outputs that both have."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        common = tuple(slice(min(a, b)) for a, b in zip(parameters[name].shape, tensor.shape, strict=True))
        parameters[name][common] = tensor[common].to(parameters[name].device)


@torch.no_grad()
def _loss(model: MultiTaskModel, tokens: Rows, batch_size: int = 64) -> float:
    """Return the mean loss of a task's rows."""
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(tokens), batch_size):
        rows = [tokens[i] for i in range(start, min(start + batch_size, len(tokens)))]
        tensors = {name: tensor.to(device) for name, tensor in model.backbone.collate(rows).items()}
        total += float(model.row_losses(torch.zeros(len(rows), dtype=torch.long, device=device), tensors).sum())
    return total / len(tokens)


def _fit(
    model: MultiTaskModel,
    task: str,
    tokens: Rows,
    settings: TransferSettings,
    seed: int,
    state: Path,
    curve: Curve | None,
) -> dict[str, Tensor]:
    """Train the model of one task to the last step, and return its trained tensors."""
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
    run_loop(build_job(model, rows, sampler), settings, seed, state, curve=curve)
    for parameter in trained:
        parameter.requires_grad_()
    return {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
