"""Adapters that are trained directly: one model for all tasks (Adapters†), or a model for each task."""

from hyperformer.methods.adapters.settings import AdapterSettings
from hyperformer.methods.registry import register_method

MODEL = "hyperformer.methods.adapters.model:Adapters"
register_method("adapters_multi_task", "Adapters†", AdapterSettings, MODEL)
register_method("adapters_per_task", "Adapters per task", AdapterSettings, MODEL, per_task=True)
