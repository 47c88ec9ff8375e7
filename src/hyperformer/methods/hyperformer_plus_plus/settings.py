"""Settings of HyperFormer++."""

from __future__ import annotations

from hyperformer.methods.hyperformer.settings import HyperFormerSettings


class HyperFormerPlusPlusSettings(HyperFormerSettings):
    """Settings of HyperFormer++, which has one hypernetwork per stack."""

    share_layers: bool = True
    """Use the same generators for all layers of a stack, conditioned on layer embeddings. false: separate generators
    for each layer, without layer embeddings.
    """
