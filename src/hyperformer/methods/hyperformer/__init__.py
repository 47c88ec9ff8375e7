"""HyperFormer: adapters generated from task embeddings, with separate hypernetworks for every block and position."""

from hyperformer.methods.hyperformer.settings import HyperFormerSettings
from hyperformer.methods.registry import register_method

register_method("hyperformer", "HyperFormer", HyperFormerSettings, "hyperformer.methods.hyperformer.model:HyperFormer")
