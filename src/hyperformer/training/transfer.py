"""Few-shot transfer: a trained model is adapted to new tasks from few rows (HyperFormer, few-shot domain transfer).

Nothing is chosen on other rows: steps and rate are given, and the last step's model is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import set_seed

from hyperformer.config import Tasks, TransferSettings
from hyperformer.data import TOKENS, Rows, Writer, drawn_rows, gathered, read_rows
from hyperformer.model import MultiTaskModel, accelerated, trained_tensors
from hyperformer.training.engine import Curve, run_loop
from hyperformer.training.finetuning import after, lengths, sampled
from hyperformer.training.sampling import TaskSampler
from hyperformer.training.states import alone, fresh_state, work_of
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

OWN = "method."  # before the names of a method's tensors, in its model


def trained_model(settings: TransferSettings) -> MultiTaskModel:
    """The model that is adapted.

    Raises:
        HyperFormerError: there is none, it shares nothing between tasks, or has nothing of the tasks' own to train.
    """
    found = MultiTaskModel.from_pretrained(settings.checkpoint, backbone=settings.backbone)
    method = found.method_settings.name
    if len(found.groups) > 1:
        raise HyperFormerError(
            f"transfer.checkpoint is {settings.checkpoint!r}, whose method {method} trained a model a task; expected "
            "one model for all tasks: train by a multi-task method"
        )
    if settings.train == "task_specific" and not found.method.own_names():
        raise HyperFormerError(
            f"transfer.train is 'task_specific', but {method} has no weights of a task's own on this backbone; take all"
        )
    return found


def adapt(
    rows: Path,
    tasks: Tasks,
    settings: TransferSettings,
    seed: int,
    states: Path,
    curves: Callable[[], Curve] | None = None,
) -> tuple[Writer, dict[str, str]]:
    """Adapts a trained model to each of the tasks, each alone: the others change nothing in it.

    Args:
        rows: the folder of checked rows; of each train split, as many as `samples` are drawn.
        tasks: the new ones.
        states: a folder for resume states of transfer, outside of what is published; they stay until `remove_states`.
        curves: starts what shows losses as they come.
    Returns:
        What writes the checkpoint of all tasks; and from where each one's own weights started: the name of a trained
        task, `mean`, `random`, or `shared` where the method has no weights of a task's own.
    Raises:
        HyperFormerError: see `trained_model`; or a task has fewer rows than `samples`.
    """
    trained = trained_model(settings)
    parts = {"tasks": tasks, "backbone": trained.backbone_settings, "transfer": settings}
    work = work_of(parts, {"rows": rows, "checkpoint": Path(settings.checkpoint)}, seed)
    method, backbone = trained.method_settings.name, trained.backbone_settings.path
    log.info("adapting %s: %s on %s, as it was trained", settings.checkpoint, method, backbone)
    with alone(states):
        return _adapted(trained, rows, tasks, settings, seed, fresh_state(states, work), curves)


def _adapted(
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
    starts: dict[str, str] = {}
    adapted: list[dict[str, Tensor]] = []
    for number, (name,) in enumerate(groups):
        set_seed(seed)
        model = accelerated(
            MultiTaskModel(
                trained.backbone_settings, trained.method_settings, tasks, settings.label_smoothing, number, groups
            )
        )
        tokens = encoded(model, name, rows, settings, seed)
        starts[name] = started(model, trained, tokens, settings.initialize_from)
        log.info("adapting to %s from %d rows, started from %s", name, len(tokens), starts[name])
        own = curve and after(number * settings.steps, curve)
        adapted.append(_fit(model, name, tokens, settings, seed, state / name, own))
    model.assemble(adapted)
    return model.save_pretrained, starts


def encoded(model: MultiTaskModel, task: str, rows: Path, settings: TransferSettings, seed: int) -> Rows:
    """The token ids of the task's samples."""
    if settings.samples is None:
        found = read_rows(rows, task, "train")
    else:
        found = drawn_rows(rows, task, "train", settings.samples, seed)
    examples = [model.tasks[task].example(row) for row in found]
    seen = {example.label for example in examples}
    unseen = [answer for place, answer in enumerate(model.tasks[task].answers) if place not in seen]
    if unseen and model.tasks[task].numbers is None:
        log.warning("%s: none of the %d rows has the answer %s", task, len(examples), ", ".join(unseen))
    return gathered(model.backbone.encode(examples, model.backbone_settings), TOKENS)


def started(model: MultiTaskModel, trained: MultiTaskModel, tokens: Rows, start: str) -> str:
    """Puts the trained tensors into the model of a new task; says where the task's own weights come from.

    Args:
        tokens: the new task's samples, on which the nearest trained task has the lowest loss.
    """
    tensors = trained_tensors(trained)
    own = {OWN + name for name in trained.method.own_names()}
    if not own:
        _put(model, tensors)
        return "shared"
    if start == "random":
        _put(model, {name: tensor for name, tensor in tensors.items() if name not in own})
        return "random"
    if start == "mean":
        _put(model, {name: t.mean(0, keepdim=True) if name in own else t for name, t in tensors.items()})
        return "mean"

    def of(number: int) -> dict[str, Tensor]:
        return {name: t[number : number + 1] if name in own else t for name, t in tensors.items()}

    losses = {}
    for number, task in enumerate(trained.tasks):
        _put(model, of(number))
        losses[task] = _loss(model, tokens)
    nearest = min(losses, key=lambda task: losses[task])
    log.info("loss of the samples: %s", ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items()))
    _put(model, of(list(losses).index(nearest)))
    return nearest


@torch.no_grad()
def _put(model: MultiTaskModel, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors into a model; of heads with other numbers of rows, the rows that both have."""
    there = dict(model.named_parameters())
    for name, tensor in tensors.items():
        common = tuple(slice(min(a, b)) for a, b in zip(there[name].shape, tensor.shape, strict=True))
        there[name][common] = tensor[common].to(there[name].device)


@torch.no_grad()
def _loss(model: MultiTaskModel, tokens: Rows, batch_size: int = 64) -> float:
    """The mean loss of a task's rows."""
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(tokens), batch_size):
        rows = [tokens[i] for i in range(start, min(start + batch_size, len(tokens)))]
        batch = model.backbone.collate(rows, [0] * len(rows))
        tensors = {name: tensor.to(device) for name, tensor in batch.tensors.items()}
        total += float(model.row_losses(batch.task_ids.to(device), tensors).sum())
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
    """Trains the model of one task to the last step; its trained tensors."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = {OWN + name for name in model.method.own_names()}
    if settings.train == "task_specific":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in own)
    state.mkdir(exist_ok=True)
    rows = {task: tokens}
    sampler = TaskSampler(lengths(rows), [1.0], seed, settings.steps, settings.batch_size)
    if settings.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    run_loop(sampled(model, rows, sampler), settings, seed, state, curve=curve)
    for parameter in trained:
        parameter.requires_grad_()
    return {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
