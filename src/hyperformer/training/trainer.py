"""The training loop of fine-tuning, transfer and pretraining, based on transformers' `Trainer`.

A batch is a pure function of (seed, step), so that a resumed run has exactly the batches of an uninterrupted run. If
several processes (ranks) train, each processes a different subset of the rows of a batch.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from hyperformer.core.errors import HyperFormerError, first_line
from hyperformer.model.tensors import restore, trained_tensors
from hyperformer.settings import LoopSettings
from hyperformer.training.batches import MicroBatches, TrainingJob, TrainingRow
from hyperformer.training.callbacks import (
    DIVERGENCE_ADVICE,
    Curve,
    Progress,
    RankSeed,
    StateChecksums,
    TaskLosses,
    check_finite,
    select_curve_values,
)
from hyperformer.training.distributed import all_gather, is_distributed
from hyperformer.training.states import TENSORS, find_last_state, step_of

log = logging.getLogger(__name__)


class _Loop(Trainer):
    """A Trainer over `MicroBatches`, in their order."""

    def __init__(self, job: TrainingJob, **arguments: Any) -> None:
        super().__init__(model=job.model, **arguments)
        self.model_accepts_loss_kwargs = False  # its forward takes only the tensors of a micro-batch
        self._job, self._losses = job, TaskLosses(job.tasks)
        self.first_step = 0

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Create AdamW with the learning rate of each group of parameters."""
        if self.optimizer is None:
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args)
            rate = options.pop("lr")
            groups = [{"params": group.parameters, "lr": rate * group.multiplier} for group in self._job.groups]
            self.optimizer = optimizer(groups, weight_decay=0.0, **options)
        return self.optimizer

    def _get_learning_rate(self) -> float:
        """Return the current learning rate of parameters with the factor 1."""
        schedule = self.lr_scheduler
        assert schedule is not None  # training has started
        return float(self.args.learning_rate * schedule.lr_lambdas[0](schedule.last_epoch))

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of this rank's micro-batches, from step `first_step` on."""
        args = self.args
        steps, count = args.max_steps - self.first_step, args.gradient_accumulation_steps
        batches = MicroBatches(self._job, self.first_step, steps, count, args.process_index, args.world_size)
        # a separate generator: otherwise the loader would change the random state that a resumed run has restored
        return DataLoader(batches, batch_size=None, shuffle=False, num_workers=0, generator=torch.Generator())

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of a micro-batch, multiplied by the weight of the micro-batch.

        Args:
            model: the model, perhaps wrapped for distributed training.
            inputs: an item of `MicroBatches`.
            return_outputs: ignored.
            num_items_in_batch: ignored.

        Raises:
            HyperFormerError: if the loss of a row is not finite; the message names the step, and tasks and rows.
        """
        micro_batch = inputs["micro_batch"]
        losses = model(**inputs["tensors"])["row_losses"]
        if not losses.isfinite().all():
            raise HyperFormerError(self._divergence_message(losses, micro_batch.rows))
        self._losses.add(losses, micro_batch.rows)
        return losses.mean() * micro_batch.weight

    def _divergence_message(self, losses: Tensor, rows: Sequence[TrainingRow]) -> str:
        row_numbers: dict[str, list[int]] = {}
        for row, loss in zip(rows, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                row_numbers.setdefault(self._job.tasks[row.task], []).append(row.number + 1)
        locations = "; ".join(
            f"{task}, row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}"
            + (" …" if len(numbers) > 5 else "")
            for task, numbers in row_numbers.items()
        )
        step = self.state.global_step + 1
        return f"the loss is no longer finite at step {step} (training rows of {locations}). {DIVERGENCE_ADVICE}"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the learning rate and the mean losses, over all rows and of each task; drop the other values."""
        if "loss" in logs:
            logs = {"learning_rate": logs["learning_rate"], **self._losses.average_and_reset(self.args.device)}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save only the trained tensors, each of them once; the method of `Trainer` fails on tied weights."""
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_tensors(self._job.model), folder / TENSORS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore(self._job.model, load_file(Path(resume_from_checkpoint) / TENSORS))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[no-untyped-call]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_rng_state(checkpoint)  # type: ignore[no-untyped-call]


@contextmanager
def _readable(state: str | None) -> Iterator[None]:
    """Turn any error in reading a resume state into an error that names the state."""
    try:
        yield
    except Exception as error:
        raise HyperFormerError(
            f"the resume state {state} cannot be read ({first_line(error)}). Remove that folder to train from scratch."
        ) from None


def uses_bf16(precision: str) -> bool:
    """Return whether to compute in bf16.

    With `auto`, the answer is yes if the GPU supports bf16 or, if there is no GPU, if the CPU has AVX-512 BF16.
    """
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def run_loop(
    job: TrainingJob,
    settings: LoopSettings,
    seed: int,
    state: Path,
    callbacks: Sequence[TrainerCallback] = (),
    save_every: int = 1000,
    curve: Curve | None = None,
    is_finished: Callable[[int], bool] = lambda step: False,
) -> bool:
    """Train until the last step or until a callback stops the run, resuming an interrupted run.

    Args:
        job: the model and its batches.
        settings: the optimizer, its schedule and the precision.
        seed: seed of dropout.
        state: a folder for resume states; the run resumes from the last complete state in it, if there is one.
        callbacks: further callbacks for the trainer.
        save_every: steps between resume states.
        curve: records the values of a step; a resumed run first records the steps of the earlier run again. None:
            nothing is recorded.
        is_finished: returns, for the step of the last resume state, whether the run had stopped early there.

    Returns:
        False if an earlier run had already finished, so that its weights were only loaded; otherwise True.

    Raises:
        HyperFormerError: if the loss or a weight is no longer finite, the processes do not train the same run, or a
            resume state cannot be read.
    """
    arguments = _arguments(settings, seed, state, save_every)
    last = find_last_state(state, arguments.world_size)
    ranks = all_gather((state.parts[-2:], last.name if last else "none"))
    if len(set(ranks)) > 1:
        raise HyperFormerError(
            f"the processes train different runs or have different resume states ({'; '.join(map(str, ranks))}); "
            "expected the same settings, rows and code on every machine, and one shared data folder. Make them equal, "
            "then run again."
        )
    if last is not None and curve is not None:
        _replay(last, curve)
    step = step_of(last) if last else 0
    if last is not None and (step == settings.steps or is_finished(step)):
        restore(job.model, load_file(last / TENSORS))
        return False
    set_seed(seed)
    loop = _Loop(job, args=arguments, callbacks=[*callbacks, Progress(curve), RankSeed(), StateChecksums(state)])
    loop.remove_callback(PrinterCallback)  # type: ignore[no-untyped-call]
    if last is not None:
        loop.first_step = step
        log.info("resuming from step %d in %s", loop.first_step, state)
    loop.train(resume_from_checkpoint=str(last) if last else None)
    check_finite(job.model, loop.state.global_step)
    return True


def _replay(last: Path, curve: Curve) -> None:
    """Record the log of a resume state in the curve, so that the curve also has the steps before the interruption."""
    for line in TrainerState.load_from_json(str(last / TRAINER_STATE_NAME)).log_history:
        curve(int(line["step"]), {name: line[name] for name in select_curve_values(line)})


def _arguments(settings: LoopSettings, seed: int, state: Path, save_every: int) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # transformers leaves an earlier run's value, and would use it
    arguments = TrainingArguments(
        output_dir=str(state),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        max_grad_norm=1.0,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        bf16=uses_bf16(settings.precision),
        use_cpu=not gpu,
        ddp_backend="gloo" if is_distributed() and not gpu else None,
        ddp_find_unused_parameters=False,
        seed=seed,
        logging_steps=_logging_interval(settings.steps, save_every),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_every,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process per GPU, not DataParallel
    return arguments


def _logging_interval(steps: int, save_every: int) -> int:
    """Return the number of steps between log lines: about a twentieth of the run, but at most about 500.

    The interval divides `save_every`, so that a resumed run logs the same steps as an uninterrupted one.
    """
    target = min(max(1, steps // 20), 500)
    divisors = [number for number in range(1, min(save_every, 100 * target) + 1) if save_every % number == 0]
    return min(divisors, key=lambda number: abs(math.log(number / target)))
