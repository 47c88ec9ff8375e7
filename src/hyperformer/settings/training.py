"""Settings of the training loop, and of multi-task training."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from hyperformer.settings.base import Fraction, Positive, SettingsModel


class LoopSettings(SettingsModel):
    """Settings of the training loop that pretraining, training and transfer share."""

    steps: Positive
    """Number of optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0, lt=100)]
    """Peak learning rate, reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps of linear warm-up; the learning rate then decays linearly to 0 at the last step."""
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


class TrainingSettings(LoopSettings):
    """Settings of multi-task training."""

    batch_size: Positive | None = None
    """Rows per batch, summed over all processes. Set either `batch_size` or `batch_tokens`."""
    batch_tokens: Positive | None = None
    """Maximum number of source tokens per batch. A batch has as many rows as fit, but at least one row."""
    temperature: Annotated[float, Field(gt=0)]
    """Temperature T of task sampling: the probability of a task is proportional to weight · rows^(1/T).
    With equal weights, T = 1 samples in proportion to the number of rows; a high T samples all tasks almost equally.
    """
    evaluate_every: Positive
    """Steps between validations. The checkpoint with the best mean metric is kept."""
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
