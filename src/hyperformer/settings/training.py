"""Settings of the training loop, and of multi-task training."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from hyperformer.settings.base import Fraction, Positive, SettingsModel

LOCATION_SETTINGS = {"resume_from", "rendezvous"}
"""Settings of a training that name locations on machines, and do not change its result."""


class OptimizerSettings(SettingsModel):
    """Settings of the optimizer that pretraining, training and transfer share."""

    learning_rate: Annotated[float, Field(gt=0, lt=100)]
    """Peak learning rate, reached after the warm-up; it then decays linearly to 0 at the last step."""
    label_smoothing: Fraction = 0.0
    """Label smoothing of the cross-entropy loss, from 0 (off) to below 1."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward and backward pass. `auto`: bf16 if the GPU (or the CPU, if there is no GPU) supports it
    natively, otherwise fp32.
    """
    gradient_accumulation_steps: Positive = 1
    """Number of micro-batches that each batch is split into, grouped by length; only one is in memory at a time."""
    gradient_checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, more time."""


class LoopSettings(OptimizerSettings):
    """Settings of a training loop with a fixed number of steps."""

    steps: Positive
    """Number of optimizer steps."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps of linear warm-up."""


class TrainingSettings(OptimizerSettings):
    """Settings of multi-task training.

    Its length is either `epochs` or `steps`, and its warm-up either `warmup_ratio` or `warmup_steps`.
    """

    epochs: Positive | None = None
    """Number of epochs. One epoch has as many rows as the training splits of all tasks together or, with
    `batch_tokens`, as many source tokens. Needs `warmup_ratio`; validation takes place once per epoch.
    """
    steps: Positive | None = None
    """Number of optimizer steps."""
    warmup_ratio: Fraction | None = None
    """Linear warm-up, as a fraction of all steps."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Linear warm-up in steps; only with `steps`."""
    batch_size: Positive | None = None
    """Rows per batch, summed over all processes. Set either `batch_size` or `batch_tokens`."""
    batch_tokens: Positive | None = None
    """Maximum number of source tokens per batch. A batch has as many rows as fit, but at least one row."""
    temperature: Annotated[float, Field(gt=0)]
    """Temperature T of task sampling: the probability of a task is proportional to weight · rows^(1/T).
    With equal weights, T = 1 samples in proportion to the number of rows; a high T samples all tasks almost equally.
    """
    min_passes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Sample small tasks more often, so that every task is expected to get at least this number of passes over its
    training rows; for this reason alone, a task never gets more than an equal share of all sampled rows.
    """
    evaluate_every: Positive | None = None
    """Steps between validations; null: ten validations in the run. The checkpoint with the best mean metric is kept.
    Only with `steps`.
    """
    validation_rows: Positive
    """Use at most this many validation rows per task during training."""
    patience: Positive | None = None
    """Stop after this many validations without a better mean metric; null: never stop early."""
    processes: Positive = 1
    """Processes on each machine, which divide every batch among them; with GPUs, at most one process per GPU."""
    machines: Positive = 1
    """Number of machines that train together."""
    rendezvous: str | None = None
    """host:port, required for several machines: the host name of the first machine, and a free port on it."""
    resume_from: str | None = None
    """Folder of resume states in another location, from which training resumes; rejected if the states were written
    with other code, settings or data.
    """

    @model_validator(mode="after")
    def _check_budget(self) -> TrainingSettings:
        if (self.epochs is None) == (self.steps is None):
            got = "neither epochs nor steps" if self.steps is None else "both epochs and steps"
            raise ValueError(f"got {got}; expected one of them. Set epochs or steps, and the other to null")
        by_steps = ("warmup_steps", "evaluate_every")
        if self.epochs is not None and (names := [name for name in by_steps if getattr(self, name) is not None]):
            raise ValueError(
                f"{' and '.join(names)} cannot be combined with epochs; expected warmup_ratio, and validation once per "
                f"epoch. Remove {' and '.join(names)}, or set steps instead of epochs"
            )
        if (self.warmup_ratio is None) == (self.warmup_steps is None):
            got = "neither warmup_ratio nor" if self.warmup_steps is None else "both warmup_ratio and"
            advice = "Set warmup_ratio" if self.epochs is not None else "Set one, and the other to null"
            raise ValueError(f"got {got} warmup_steps; expected one of them. {advice}")
        return self

    @model_validator(mode="after")
    def _check_batches(self) -> TrainingSettings:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError("expected either batch_size or batch_tokens, and not both")
        if self.batch_tokens is not None and self._micro_batches > 1:
            raise ValueError(
                "batch_tokens cannot be combined with several processes or gradient accumulation; use batch_size"
            )
        if self.batch_size is not None and self.batch_size < self._micro_batches:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected at least {self._micro_batches}, the product of processes, "
                "machines and gradient_accumulation_steps. Increase batch_size, or decrease one of them"
            )
        if (self.machines > 1) != (self.rendezvous is not None):
            raise ValueError(
                f"machines is {self.machines} and rendezvous is {self.rendezvous!r}; set rendezvous to host:port for "
                "several machines, and to null for one machine"
            )
        if self.rendezvous is not None and not re.fullmatch(r"[^:\s]+:\d+", self.rendezvous):
            raise ValueError(f"rendezvous is {self.rendezvous!r}; expected host:port")
        return self

    @property
    def _micro_batches(self) -> int:
        return self.processes * self.machines * self.gradient_accumulation_steps
