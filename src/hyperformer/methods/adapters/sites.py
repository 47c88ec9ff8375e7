"""Choices that all methods with adapters share: sites, bottleneck and initial gain."""

from __future__ import annotations

from collections.abc import Sequence

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Site
from hyperformer.methods.adapters.settings import AdapterSettings

POSITIONS = {"feed_forward": 0, "self_attention": 1}
"""Value of the setting `positions` → value of `Site.position`."""


def compute_bottleneck(settings: AdapterSettings, width: int) -> int:
    """Compute the bottleneck r of adapters: the backbone's width divided by the reduction factor.

    Raises:
        HyperFormerError: the reduction factor does not divide the width.
    """
    bottleneck, rest = divmod(width, settings.reduction_factor)
    if rest or not bottleneck:
        raise HyperFormerError(
            f"the method's reduction_factor is {settings.reduction_factor}; expected a divisor of the backbone's width "
            f"{width}. Change the setting."
        )
    return bottleneck


def get_initial_gain(settings: AdapterSettings) -> float:
    """Return the initial gain of the adapters' trained layer norms."""
    return 0.0 if settings.adapter_init == "identity" else 1.0


def select_sites(settings: AdapterSettings, sites: Sequence[Site]) -> list[Site]:
    """Select the sites of a backbone where the settings insert an adapter.

    Raises:
        HyperFormerError: the settings select no site of the backbone.
    """
    selected = [
        site
        for site in sites
        if settings.stacks in ("both", site.stack)
        and (settings.positions == "both" or POSITIONS[settings.positions] == site.position)
    ]
    if not selected:
        raise HyperFormerError(
            f"the method's stacks are {settings.stacks!r}, but the backbone has no such stack. Use 'both'."
        )
    return selected
