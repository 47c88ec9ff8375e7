"""One adapter that all tasks share, and a head for each task."""

from hyperformer.methods.adapters.settings import AdapterSettings
from hyperformer.methods.registry import register_method

register_method(
    "shared_adapter", "shared adapter", AdapterSettings, "hyperformer.methods.shared_adapter.model:SharedAdapterMethod"
)
