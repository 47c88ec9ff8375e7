"""Training methods, which provide the trainable weights of a model; this package does not import PyTorch.

A method is a package with its settings (`settings.py`), its weights (`model.py`), and a call of `register_method`.
"""

from hyperformer.methods import adapters, fine_tuning, hyperformer, hyperformer_plus_plus, shared_adapter
from hyperformer.methods.registry import METHODS, MethodType, group_tasks, make_method, register_method

__all__ = [
    "METHODS",
    "MethodType",
    "adapters",
    "fine_tuning",
    "group_tasks",
    "hyperformer",
    "hyperformer_plus_plus",
    "make_method",
    "register_method",
    "shared_adapter",
]
