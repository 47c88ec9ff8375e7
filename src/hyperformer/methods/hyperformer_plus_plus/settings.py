"""Settings of HyperFormer++."""

from __future__ import annotations

from typing import Literal

from hyperformer.methods.hyperformer.settings import HyperFormerSettings


class HyperFormerPlusPlusSettings(HyperFormerSettings):
    """Settings of HyperFormer++, which has one hypernetwork per stack."""

    share_layers: bool = True
    """Use the same generators for all layers of a stack, conditioned on layer embeddings. false: separate generators
    for each layer, without layer embeddings.
    """
    embeddings: Literal["concatenated", "product"] = "concatenated"
    """Combination of the embeddings of task, layer and position. `concatenated`: as in the paper, with initial values
    from N(0, 1); `product`: their element-wise product, with initial values of -1 and 1, which keeps tasks apart.
    """
    shared_adapter: bool = False
    """Train an adapter that all tasks share at each site, and add the generated weights to its weights, without
    generators' biases; the generated weights start at 0.
    """
