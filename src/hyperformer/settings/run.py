"""All settings of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hyperformer.settings.backbone import BackboneSettings
from hyperformer.settings.base import Positive, SettingsModel
from hyperformer.settings.data import DataSettings
from hyperformer.settings.embedded import EmbeddedSettings
from hyperformer.settings.evaluation import EvaluationSettings
from hyperformer.settings.export import ExportSettings
from hyperformer.settings.methods import Methods, MethodSettings
from hyperformer.settings.presets import Preset
from hyperformer.settings.pretraining import PretrainingSettings
from hyperformer.settings.tasks import Tasks
from hyperformer.settings.training import TrainingSettings
from hyperformer.settings.transfer import TransferSettings


class RunSettings(SettingsModel):
    """Settings of training, evaluation and export on tasks whose rows exist."""

    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)]
    """Seed of everything random: splits, initial weights and the order of rows."""
    preset: Preset | None = None
    """Defaults that depend on the kind of backbone; null: those of the backbone's `model_type`. Other environments do
    not inherit this setting of base.
    """
    threads: Positive | None = None
    """CPU threads of PyTorch; null: `OMP_NUM_THREADS` or, if it is not set, the CPUs that the process may use. Results
    are equal byte for byte only for equal numbers of threads.
    """
    backbone: BackboneSettings
    data: DataSettings
    tasks: Tasks
    method: str
    """Method to train: the name of one of the blocks of `methods`."""
    methods: Methods
    training: TrainingSettings
    evaluation: EvaluationSettings
    export: ExportSettings

    @property
    def chosen_method(self) -> MethodSettings:
        """The settings of the method that `method` names."""
        return self.methods.get_method(self.method)


class Settings(RunSettings):
    """All settings of a Kedro environment."""

    embedded: EmbeddedSettings
    pretraining: PretrainingSettings
    transfer: TransferSettings
