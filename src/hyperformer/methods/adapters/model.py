"""Adapters† (Karimi Mahabadi et al. 2021, section 4): one adapter per task and site, shared layer norms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperformer.core.types import AdapterWeights, Site
from hyperformer.methods.adapters.settings import AdapterSettings
from hyperformer.methods.adapters.sites import compute_bottleneck, get_initial_gain, select_sites
from hyperformer.methods.base import INITIAL_STD, Method, compute_task_share


class Adapters(Method):
    """Adapters whose weights are trained directly, not generated: A(x) = x + LN(U act(D x + b_D) + b_U).

    The parameters for t tasks and s sites are down (D) [t, s, r, d], down_bias [t, s, r], up (U) [t, s, d, r],
    up_bias [t, s, d]; and the layer norms that the tasks share: gain, shift [s, d].
    """

    task_specific = (*Method.task_specific, "down", "down_bias", "up", "up_bias")

    def __init__(
        self, settings: AdapterSettings, tasks: Sequence[str], sites: Sequence[Site], width: int, head_rows: int = 0
    ) -> None:
        super().__init__(settings, tasks, sites, width, head_rows)
        self.sites, self.activation = select_sites(settings, sites), settings.activation
        t, s, d, r = len(tasks), len(self.sites), width, compute_bottleneck(settings, width)
        self.down = nn.Parameter(torch.empty(t, s, r, d).normal_(std=INITIAL_STD))
        self.down_bias = nn.Parameter(torch.zeros(t, s, r))
        self.up = nn.Parameter(torch.empty(t, s, d, r).normal_(std=INITIAL_STD))
        self.up_bias = nn.Parameter(torch.zeros(t, s, d))
        self.gain = nn.Parameter(torch.full((s, d), get_initial_gain(settings)))
        self.shift = nn.Parameter(torch.zeros(s, d))

    def weights(self, task_ids: Tensor) -> AdapterWeights:
        """Return the adapters of the tasks `task_ids` [n] at all sites."""
        n = len(task_ids)
        return AdapterWeights(
            down=self.down[task_ids],  # [n, s, r, d]
            down_bias=self.down_bias[task_ids],  # [n, s, r]
            up=self.up[task_ids],  # [n, s, d, r]
            up_bias=self.up_bias[task_ids],  # [n, s, d]
            gain=self.gain.expand(n, -1, -1),  # [n, s, d]
            shift=self.shift.expand(n, -1, -1),  # [n, s, d]
        )

    def parameter_kind(self, name: str) -> str:
        """Return `layer_norms` for the shared layer norms of the adapters; see `Method.parameter_kind`."""
        return "layer_norms" if name in ("gain", "shift") else super().parameter_kind(name)

    @torch.no_grad()
    def diagnose(self) -> dict[str, float]:
        """Measure by how much the adapters of the tasks differ; see `Method.diagnose`."""
        task_ids = torch.arange(len(self.down), device=self.down.device)
        return {"task_share": compute_task_share(self.weights(task_ids))} if len(task_ids) > 1 else {}
