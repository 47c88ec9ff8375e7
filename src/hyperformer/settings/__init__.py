"""Settings of a run: typed parameters that are validated before any work starts, one module for each block."""

from hyperformer.settings.backbone import BackboneSettings
from hyperformer.settings.base import ConfigurationError, SettingsModel
from hyperformer.settings.data import DataSettings
from hyperformer.settings.embedded import EmbeddedSettings
from hyperformer.settings.evaluation import EvaluationSettings
from hyperformer.settings.export import ExportSettings
from hyperformer.settings.methods import (
    AdapterSettings,
    FineTuningSettings,
    HyperFormerPlusPlusSettings,
    HyperFormerSettings,
    Methods,
    MethodSettings,
    ProjectorSettings,
)
from hyperformer.settings.pretraining import PretrainingSettings, T5Sizes
from hyperformer.settings.renamed import rename_settings
from hyperformer.settings.tasks import SourceSettings, SplitSettings, Tasks, TaskSettings
from hyperformer.settings.training import LoopSettings, TrainingSettings
from hyperformer.settings.transfer import TransferSettings
from hyperformer.settings.validation import Settings, check_settings

__all__ = [
    "AdapterSettings",
    "BackboneSettings",
    "ConfigurationError",
    "DataSettings",
    "EmbeddedSettings",
    "EvaluationSettings",
    "ExportSettings",
    "FineTuningSettings",
    "HyperFormerPlusPlusSettings",
    "HyperFormerSettings",
    "LoopSettings",
    "MethodSettings",
    "Methods",
    "PretrainingSettings",
    "ProjectorSettings",
    "Settings",
    "SettingsModel",
    "SourceSettings",
    "SplitSettings",
    "T5Sizes",
    "TaskSettings",
    "Tasks",
    "TrainingSettings",
    "TransferSettings",
    "check_settings",
    "rename_settings",
]
