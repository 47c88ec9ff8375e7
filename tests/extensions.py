"""A kind of task, a method, a backbone family and an export target from outside the package, one of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from hyperformer.backbones import register_backbone
from hyperformer.backbones.encoder import EncoderBackbone
from hyperformer.core.types import AdapterWeights, Site
from hyperformer.export import register_target
from hyperformer.export.classifier import Classifier
from hyperformer.methods import register_method
from hyperformer.methods.base import Method
from hyperformer.settings import SettingsModel, TaskSettings
from hyperformer.tasks import Classification, Task, register_task


class YesNoSettings(TaskSettings):
    """Settings of a task whose answers are yes and no."""

    yes: str
    """Value of the label column that means yes; any other value means no."""


class YesNo(Classification):
    """A task whose answers are yes and no."""

    settings: YesNoSettings  # type: ignore[assignment]

    def _answers(self) -> tuple[list[str], None]:
        return ["no", "yes"], None

    def read_label(self, row: Mapping[str, Any]) -> int:
        """Return 1 for yes and 0 for no."""
        return int(row[self.settings.label_column] == self.settings.yes)


class RandomAdapterSettings(SettingsModel):
    """Settings of an adapter that all tasks share."""

    bottleneck: int


class RandomAdapter(Method):
    """One adapter per site for all tasks, and a head for each task."""

    def __init__(
        self,
        settings: RandomAdapterSettings,
        tasks: Sequence[str],
        sites: Sequence[Site],
        width: int,
        head_rows: int = 0,
    ) -> None:
        super().__init__(settings, tasks, sites, width, head_rows)
        self.sites, self.activation = list(sites), "relu"
        s, r, d = len(sites), settings.bottleneck, width
        shapes = {"down": (s, r, d), "down_bias": (s, r), "up": (s, d, r)}
        shapes |= dict.fromkeys(("up_bias", "gain", "shift"), (s, d))
        self.adapters = nn.ParameterDict({name: torch.randn(shape) * 0.1 for name, shape in shapes.items()})

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        """Return the same adapters for each task."""
        n = len(task_ids)
        return AdapterWeights(**{name: tensor.expand(n, *tensor.shape) for name, tensor in self.adapters.items()})


class CopiedBertConfig(BertConfig):
    """BERT under another model type."""

    model_type = "copied_bert"


class CopiedBertModel(BertModel):
    """BERT with this configuration."""

    config_class = CopiedBertConfig


class CopiedBert(EncoderBackbone):
    """A family with a model type that the package does not know."""


class ClassifierWithLabels(Classifier):
    """The classifier's files, and a file of the answers."""

    def write(self, task: Task, folder: Path) -> None:
        """Write the graph and the answers."""
        super().write(task, folder)
        (folder / "answers.txt").write_text("\n".join(task.answers))


def register() -> None:
    """Register all extensions."""
    AutoConfig.register("copied_bert", CopiedBertConfig)
    AutoModel.register(CopiedBertConfig, CopiedBertModel)
    register_backbone(CopiedBert, "copied_bert")
    register_task("yes_no", YesNoSettings, YesNo)
    register_target(ClassifierWithLabels, "yes_no")
    register_method("random_adapter", "An adapter of random weights", RandomAdapterSettings, "extensions:RandomAdapter")
