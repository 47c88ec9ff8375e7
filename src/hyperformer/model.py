"""A backbone, a method and tasks as one model: it learns from mixed batches, answers rows, and bakes tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hyperformer import backbones, methods, tasks, text
from hyperformer.config import AdapterSettings, BackboneSettings, MethodSettings, Tasks
from hyperformer.tasks import Task
from hyperformer.types import Answer, Example, HyperFormerError, Scores

CONFIGURATION, WEIGHTS = "configuration.json", "trained.safetensors"


class MultiTaskModel(nn.Module):
    """One backbone that answers every task; frozen but for its layer norms, unless the method trains it.

    Args:
        backbone: where the frozen model is; it is loaded here.
        method: how the trainable weights arise.
        settings: the tasks.
        label_smoothing: of the loss.
    """

    def __init__(
        self, backbone: BackboneSettings, method: MethodSettings, settings: Tasks, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone_settings, self.method_settings, self.task_settings = backbone, method, settings
        self.tasks: dict[str, Task] = tasks.make(settings)
        self.label_smoothing = label_smoothing
        activation = {"activation": method.root.activation} if isinstance(method.root, AdapterSettings) else {}
        self.backbone = backbones.load(backbone, **activation)
        self.method = methods.make(method, list(self.tasks), self.backbone.sites(), self.backbone.width)
        if not self.method.trains_backbone:
            self.backbone.freeze()
        self.answers = {name: self.backbone.answer_ids(task.answers) for name, task in self.tasks.items()}

    def task_id(self, task: str) -> int:
        """The id of a task in batches."""
        return list(self.tasks).index(task)

    def forward(self, task_ids: Tensor, **tensors: Tensor) -> dict[str, Tensor]:
        """The loss of a batch of any mix of tasks: the mean over its rows.

        Args:
            task_ids: [B].
            tensors: the backbone's, by name.
        """
        return {"loss": self.row_losses(task_ids, tensors).mean()}

    def row_losses(self, task_ids: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Each row's loss with its own task's adapters, [B]."""
        present, rows = task_ids.unique(return_inverse=True)
        with self.backbone.places.using(self.method.weights(present), rows if len(present) > 1 else None):
            return self.backbone.loss(tensors, self.label_smoothing)

    @torch.no_grad()
    def scores(self, task: str, sources: Sequence[str], batch_size: int) -> list[Scores]:
        """Log-likelihoods of the task's answers for each source text."""
        self.eval()
        examples = [Example(task, source, "") for source in sources]
        encoded = self.backbone.encode(examples, self.backbone_settings.max_source_tokens)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
        device = next(self.parameters()).device
        weights = self.method.weights(torch.tensor([self.task_id(task)], device=device))
        found: list[Scores | None] = [None] * len(encoded)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self.backbone.collate([encoded[i] for i in chosen], [0] * len(chosen)).tensors
            with self.backbone.places.using(weights, None):
                values = self.backbone.scores(
                    batch["input_ids"].to(device), batch["attention_mask"].to(device), self.answers[task].to(device)
                )  # [B, A]
            for i, row in zip(chosen, values.tolist(), strict=True):
                found[i] = Scores(task, tuple(row))
        return [scores for scores in found if scores is not None]

    def predict(self, task: str, rows: Sequence[Mapping[str, Any]], batch_size: int = 64) -> list[Answer]:
        """The answer to each row of a task."""
        if task not in self.tasks:
            raise HyperFormerError(f"unknown task {task!r}; the model knows {', '.join(self.tasks)}")
        known = self.tasks[task]
        sources = [text.render(known.settings.text, row) for row in rows]
        return [text.combine(s.values, known.answers, known.numbers) for s in self.scores(task, sources, batch_size)]

    @torch.no_grad()
    def bake(self, task: str) -> backbones.Backbone:
        """The backbone with the task's adapters as constants; the hypernetwork is gone."""
        weights = self.method.weights(torch.tensor([self.task_id(task)], device=next(self.parameters()).device))
        return self.backbone if weights is None else self.backbone.baked(weights)

    def save(self, folder: Path) -> None:
        """Writes trained tensors and configuration; never the frozen backbone."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_tensors(self), folder / WEIGHTS)
        configuration = {
            "backbone": self.backbone_settings.model_dump(),
            "method": self.method_settings.model_dump(),
            "tasks": self.task_settings.model_dump(),
        }
        (folder / CONFIGURATION).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> MultiTaskModel:
    """The model of a checkpoint folder.

    Raises:
        HyperFormerError: the folder is no checkpoint, or its tensors do not fit its configuration.
    """
    try:
        configuration = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        missing = Path(str(error.filename or WEIGHTS)).name
        raise HyperFormerError(
            f"{folder} is no checkpoint (it has no {missing}); train first, or name another"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise HyperFormerError(f"the checkpoint {folder} is damaged ({error}); train again, or name another") from None
    model = MultiTaskModel(
        BackboneSettings(**configuration["backbone"]),
        MethodSettings(configuration["method"]),
        Tasks(configuration["tasks"]),
    )
    restore(model, tensors)
    return model.eval()


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts trained tensors back; exactly those that training changes must be there, in their shapes."""
    expected = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    odd = sorted(
        {name for name in expected if name not in tensors or tensors[name].shape != expected[name]}
        | (tensors.keys() - expected.keys())
    )
    if odd:
        raise HyperFormerError(
            f"the saved tensors do not fit the model: {len(odd)} differ in name or shape, the first is {odd[0]!r}; "
            "train again, or use the backbone and sizes that they were trained with"
        )
    model.load_state_dict(tensors, strict=False)
