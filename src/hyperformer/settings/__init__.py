"""Settings of a run: typed parameters that are validated before any work starts, one module for each block."""

from hyperformer.settings.backbone import BackboneSettings
from hyperformer.settings.base import ConfigurationError, SettingsModel
from hyperformer.settings.data import DataSettings
from hyperformer.settings.embedded import EmbeddedSettings
from hyperformer.settings.evaluation import EvaluationSettings
from hyperformer.settings.export import ExportSettings
from hyperformer.settings.methods import Methods, MethodSettings
from hyperformer.settings.pretraining import PretrainingSettings, T5Sizes
from hyperformer.settings.renamed import rename_settings
from hyperformer.settings.run import RunSettings, Settings
from hyperformer.settings.tasks import SourceSettings, SplitSettings, Tasks, TaskSettings
from hyperformer.settings.training import LoopSettings, TrainingSettings
from hyperformer.settings.transfer import TransferSettings

__all__ = [
    "BackboneSettings",
    "ConfigurationError",
    "DataSettings",
    "EmbeddedSettings",
    "EvaluationSettings",
    "ExportSettings",
    "LoopSettings",
    "MethodSettings",
    "Methods",
    "PretrainingSettings",
    "RunSettings",
    "Settings",
    "SettingsModel",
    "SourceSettings",
    "SplitSettings",
    "T5Sizes",
    "TaskSettings",
    "Tasks",
    "TrainingSettings",
    "TransferSettings",
    "rename_settings",
]
