"""HyperFormer++: adapters generated from task, layer and position embeddings, with one hypernetwork per stack."""

from hyperformer.methods.hyperformer_plus_plus.settings import HyperFormerPlusPlusSettings
from hyperformer.methods.registry import register_method

register_method(
    "hyperformer_plus_plus",
    "HyperFormer++",
    HyperFormerPlusPlusSettings,
    "hyperformer.methods.hyperformer_plus_plus.model:HyperFormerPlusPlus",
)
