"""The trained tensors of a model, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hyperformer.core.errors import HyperFormerError


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters of one kind, with a factor on the learning rate."""

    kind: str
    multiplier: float
    parameters: Sequence[nn.Parameter]


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training changes, by name."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load trained tensors into a model; they must have exactly the names and shapes of its trainable parameters."""
    expected = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    mismatched = sorted(
        {name for name in expected if name not in tensors or tensors[name].shape != expected[name]}
        | (tensors.keys() - expected.keys())
    )
    if mismatched:
        raise HyperFormerError(
            f"the saved tensors do not fit the model: {len(mismatched)} differ in name or shape, the first is "
            f"{mismatched[0]!r}. Train again, or use the backbone and sizes that they were trained with."
        )
    model.load_state_dict(tensors, strict=False)
