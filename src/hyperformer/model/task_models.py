"""The models of a checkpoint, which together answer all of its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer
from hyperformer.model import saving
from hyperformer.model.checkpoint import TrainingRecord, read_checkpoint
from hyperformer.model.multi_task import DEFAULT_EVALUATION, MultiTaskModel, read_tensors
from hyperformer.model.tensors import restore
from hyperformer.settings import EvaluationSettings
from hyperformer.tasks import Task


class TaskModels(Mapping[str, MultiTaskModel]):
    """The trained models of a method: task → the model that answers it.

    A method that trains one model for all tasks has one model; a method that trains a model per task has one for each
    task. The models share the frozen weights of the backbone in memory.

    Args:
        models: the models; each task is in the group of exactly one of them.
    """

    def __init__(self, models: Sequence[MultiTaskModel]) -> None:
        self.models = list(models)
        self.record: TrainingRecord | None = None
        """The record of the training of all models, if it is known."""
        self._by_task = {name: model for model in models for name in model.group}

    @classmethod
    def assemble(
        cls, model: MultiTaskModel, groups: Sequence[Sequence[str]], tensors: Iterable[Mapping[str, Tensor]]
    ) -> TaskModels:
        """Create a model of each group, with its trained tensors and the frozen weights of `model`.

        `model` itself becomes the model of its group; the models of other groups are copies.

        Raises:
            HyperFormerError: the tensors of a group do not fit the model.
        """
        models = []
        for group, trained in zip(groups, tensors, strict=True):
            models.append(model if list(group) == model.group else model.copy_for(group))
            restore(models[-1], trained)
        return cls([model.eval() for model in models])

    def __getitem__(self, task: str) -> MultiTaskModel:
        if task not in self._by_task:
            raise HyperFormerError(f"unknown task {task!r}; expected one of {', '.join(self.tasks)}.")
        return self._by_task[task]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.tasks if name in self._by_task)

    def __len__(self) -> int:
        return len(self._by_task)

    @property
    def first(self) -> MultiTaskModel:
        """The first model, for what all models have in common: settings, tasks and the tokenizer."""
        return self.models[0]

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name, in the order of their settings."""
        return self.first.tasks

    def to(self, device: str) -> Self:
        """Move all models to a device; frozen weights stay shared, trained weights take memory for each model."""
        for model in self.models:
            model.to(device)
        return self

    def answer(
        self, task: str, rows: Sequence[Mapping[str, Any]], settings: EvaluationSettings = DEFAULT_EVALUATION
    ) -> list[Answer]:
        """Predict the answers of rows of a task; see `MultiTaskModel.answer`."""
        return self[task].answer(task, rows, settings)

    def predict(self, task: str, row: Mapping[str, Any]) -> Answer:
        """Predict the answer of one row of a task."""
        return self[task].predict(task, row)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write trained tensors, configuration and model card; the backbone is stored as a path with its checksum."""
        saving.save(self.models, Path(folder), self.record)

    def push_to_hub(self, repository: str, private: bool | None = None) -> None:
        """Upload the files of `save_pretrained` to the Hub; see `MultiTaskModel.push_to_hub`."""
        saving.push(self.models, repository, private, self.record)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None, backbone: str | None = None) -> TaskModels:
        """Load the models of a checkpoint.

        Args:
            name: a folder, or the name of a repository on the Hub.
            revision: branch, tag or commit on the Hub; None: the default branch. Ignored for a folder.
            backbone: path or Hub name of the backbone; None: the one that is stored in the checkpoint.

        Raises:
            HyperFormerError: `name` is not a checkpoint, its tensors do not fit its configuration, or the backbone is
                not the one that the checkpoint was trained on.
        """
        checkpoint = read_checkpoint(name, revision, backbone)
        model = MultiTaskModel.from_checkpoint(checkpoint, checkpoint.groups[0])
        if len(checkpoint.groups) == 1:
            models = cls([model])
        else:
            tensors = (read_tensors(checkpoint, group) for group in checkpoint.groups)
            models = cls.assemble(model, checkpoint.groups, tensors)
        models.record = checkpoint.training
        return models
