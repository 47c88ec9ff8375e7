"""Fine-tuning of the whole backbone: one model for all tasks, or a model for each task."""

from hyperformer.methods.fine_tuning.settings import FineTuningSettings
from hyperformer.methods.registry import register_method

MODEL = "hyperformer.methods.fine_tuning.model:FineTuning"
register_method("fine_tuning_multi_task", "fine-tuning, multi-task", FineTuningSettings, MODEL)
register_method("fine_tuning_per_task", "fine-tuning per task", FineTuningSettings, MODEL, per_task=True)
