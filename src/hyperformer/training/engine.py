"""The loop under fine-tuning and pretraining, on transformers' Trainer: in one process, or as one rank of several.

What a batch holds is a pure function of (seed, step): a stopped run that resumes sees exactly the batches that it would
have seen, and ranks take disjoint rows of one batch.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from hyperformer.config import LoopSettings
from hyperformer.manifest import sha256
from hyperformer.model import first_line, restore, trained_tensors
from hyperformer.progress import bar
from hyperformer.training.distributed import gathered, launched
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

TENSORS = "trained.safetensors"
SEAL, PREFIX = "seal.json", "checkpoint-"
LOWER_RATE = "take a lower learning_rate or more warmup_steps, or precision: fp32"
Curve = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Row:
    """One row of a batch: token ids by name, its task, and its number among the task's training rows."""

    tokens: dict[str, list[int]]
    task: int = 0
    number: int = 0


@dataclass(frozen=True)
class Work:
    """What a loop trains.

    Attributes:
        model: what requires gradients in it is trained; its forward takes collated tensors and gives
            {"row_losses": [B]}.
        rows: the rows of a step's batch, a pure function of the step.
        collate: rows → the model's tensors.
        tasks: names, by the rows' `task`.
    """

    model: nn.Module
    rows: Callable[[int], list[Row]]
    collate: Callable[[Sequence[Row]], dict[str, Tensor]]
    tasks: Sequence[str]


@dataclass(frozen=True)
class _Part:
    """What is computed at once: some rows of a step's batch, and what their mean loss counts in the batch's."""

    rows: list[Row]
    weight: float


class Parts(Dataset[dict[str, Any]]):
    """The batches of a run from step `first` on, each in `parts` of like length: item i is a part of step i // parts.

    A rank has every `ranks`-th row of a batch, beginning with its own number.
    """

    def __init__(self, work: Work, first: int, steps: int, parts: int = 1, rank: int = 0, ranks: int = 1) -> None:
        self._work, self._first, self._steps, self._parts = work, first, steps, parts
        self._rank, self._ranks = rank, ranks

    def __len__(self) -> int:
        return self._steps * self._parts

    def part(self, index: int) -> _Part:
        """Its rows, without their tensors."""
        step, number = divmod(index, self._parts)
        batch = self._work.rows(self._first + step)
        own = batch[self._rank :: self._ranks]
        if self._parts > 1:
            own = sorted(own, key=lambda row: len(row.tokens["input_ids"]))
            bounds = [len(own) * part // self._parts for part in range(self._parts + 1)]
            own = own[bounds[number] : bounds[number + 1]]
        # the trainer takes the mean over parts and ranks
        return _Part(own, len(own) * self._parts * self._ranks / len(batch))

    def __getitem__(self, index: int) -> dict[str, Any]:
        part = self.part(index)
        return {"tensors": self._work.collate(part.rows), "part": part}


class TaskLosses:
    """Sums of losses since they were last taken, by task."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks, self._sums = tasks, torch.zeros(2, len(tasks), dtype=torch.float64)

    def add(self, losses: Tensor, rows: Sequence[Row]) -> None:
        """Adds the losses [B] of rows."""
        tasks = torch.tensor([row.task for row in rows])
        values = losses.detach().double().cpu()
        self._sums.index_add_(1, tasks, torch.stack([values, torch.ones_like(values)]))

    def take(self, device: torch.device) -> dict[str, float]:
        """The mean since the last time of every task that was seen, over all ranks, and of all rows."""
        sums = self._sums
        if dist.is_initialized():
            sums = sums.to(device)
            dist.all_reduce(sums)
        total, count = sums.cpu().tolist()
        self._sums = torch.zeros_like(self._sums)
        found = {f"loss/{task}": total[i] / count[i] for i, task in enumerate(self._tasks) if count[i]}
        return {"loss/mean": sum(total) / max(sum(count), 1.0), **found}


class _Loop(Trainer):
    """Trainer over `Parts`: the loader hands out whole parts, in order."""

    def __init__(self, work: Work, **arguments: Any) -> None:
        super().__init__(model=work.model, **arguments)
        self.model_accepts_loss_kwargs = False  # a part is all that it is given
        self._work, self._losses = work, TaskLosses(work.tasks)
        self.first_step = 0

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        given = self.args
        steps, accumulated = given.max_steps - self.first_step, given.gradient_accumulation_steps
        parts = Parts(self._work, self.first_step, steps, accumulated, given.process_index, given.world_size)
        # a generator of its own: the loader would draw from the random state that a resumed run has just restored
        return DataLoader(parts, batch_size=None, shuffle=False, num_workers=0, generator=torch.Generator())

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The part's share of the batch's loss.

        Raises:
            HyperFormerError: it is not finite; the step, the tasks and the rows are named.
        """
        part = inputs["part"]
        losses = model(**inputs["tensors"])["row_losses"]
        if not losses.isfinite().all():
            raise HyperFormerError(self._not_finite(losses, part.rows))
        self._losses.add(losses, part.rows)
        return losses.mean() * part.weight

    def _not_finite(self, losses: Tensor, rows: Sequence[Row]) -> str:
        odd: dict[str, list[int]] = {}
        for row, loss in zip(rows, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                odd.setdefault(self._work.tasks[row.task], []).append(row.number + 1)
        named = "; ".join(
            f"{task}, row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}"
            + (" …" if len(numbers) > 5 else "")
            for task, numbers in odd.items()
        )
        step = self.state.global_step + 1
        return f"the loss is no longer finite at step {step} (training rows of {named}); {LOWER_RATE}"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Puts each task's own loss beside what the trainer says."""
        if "loss" in logs:
            logs = {"learning_rate": logs["learning_rate"], **self._losses.take(self.args.device)}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Trained tensors only, each once: tied weights break the plain way."""
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_tensors(self._work.model), folder / TENSORS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore(self._work.model, load_file(Path(resume_from_checkpoint) / TENSORS))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[no-untyped-call]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_rng_state(checkpoint)  # type: ignore[no-untyped-call]


@contextmanager
def _readable(state: str | None) -> Iterator[None]:
    """One sentence for a state whose files are none; torch reads numbers from them, and refuses whatever else."""
    try:
        yield
    except Exception as error:
        raise HyperFormerError(
            f"the resume state {state} cannot be read ({first_line(error)}); remove that folder to begin anew"
        ) from None


def wants_bf16(precision: str) -> bool:
    """Whether to compute in bf16: `auto` looks at the GPU, or at the processor's own bf16 instructions."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _processor_flags()


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


class Progress(TrainerCallback):
    """A bar on a terminal; every so often a line of step, loss and the time that is left, and a point of the curve."""

    def __init__(self, curve: Curve | None) -> None:
        self._curve = curve
        self._start = (0, 0.0)
        self._shown = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._start = (state.global_step, time.monotonic())
        self._bar = self._shown.enter_context(bar("training", state.max_steps, state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._shown.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss/mean" not in logs:
            return
        step, began = self._start
        left = (time.monotonic() - began) / (state.global_step - step) * (state.max_steps - state.global_step)
        minutes, seconds = divmod(round(left), 60)
        log.info(
            "step %d of %d  loss %.4f  %d:%02d left",
            state.global_step,
            state.max_steps,
            logs["loss/mean"],
            minutes,
            seconds,
        )
        if self._curve:
            self._curve(state.global_step, {name: logs[name] for name in _curves(logs)})


def _curves(line: dict[str, float]) -> list[str]:
    return [name for name in line if name == "learning_rate" or name.startswith("loss/")]


class OwnDropout(TrainerCallback):
    """Gives every rank but the first, which is as a single process, random numbers of its own."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)


def run_loop(
    work: Work,
    settings: LoopSettings,
    seed: int,
    state: Path,
    callbacks: Sequence[TrainerCallback] = (),
    save_every: int = 1000,
    curve: Curve | None = None,
    ended: Callable[[int], bool] = lambda step: False,
) -> bool:
    """Trains to the last step; says whether there was anything to train.

    Args:
        state: a folder for resume states; where it holds one, the run goes on from there.
        save_every: steps between resume states.
        curve: shows the values at a step; it is first given those of the steps that an earlier run has done.
        ended: whether a run that came as far as this step was at its end.
    Raises:
        HyperFormerError: the loss or a weight is no longer finite, or the processes do not have the same work.
    """
    arguments = _arguments(settings, seed, state, save_every)
    last = _last_state(state, arguments.world_size)
    seen = gathered((state.parts[-2:], last.name if last else "none"))
    if len(set(seen)) > 1:
        raise HyperFormerError(
            f"the processes have different work or resume states ({'; '.join(map(str, seen))}); expected the same "
            "settings, rows and code on every machine, and one data folder that all share"
        )
    if last is not None and curve is not None:
        _show(last, curve)
    step = _step(last) if last else 0
    if last is not None and (step == settings.steps or ended(step)):
        restore(work.model, load_file(last / TENSORS))
        return False
    set_seed(seed)
    loop = _Loop(work, args=arguments, callbacks=[*callbacks, Progress(curve), OwnDropout(), Sealed(state)])
    loop.remove_callback(PrinterCallback)  # type: ignore[no-untyped-call]
    if last is not None:
        loop.first_step = step
        log.info("going on from step %d in %s", loop.first_step, state)
    loop.train(resume_from_checkpoint=str(last) if last else None)
    check_finite(work.model, loop.state.global_step)
    return True


def _show(last: Path, curve: Curve) -> None:
    """Gives the curve what a resume state knows."""
    for line in TrainerState.load_from_json(str(last / TRAINER_STATE_NAME)).log_history:
        curve(int(line["step"]), {name: line[name] for name in _curves(line)})


def _arguments(settings: LoopSettings, seed: int, state: Path, save_every: int) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # transformers leaves an earlier run's there, and obeys it
    arguments = TrainingArguments(
        output_dir=str(state),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        bf16=wants_bf16(settings.precision),
        use_cpu=not gpu,
        ddp_backend="gloo" if launched() and not gpu else None,
        ddp_find_unused_parameters=False,
        seed=seed,
        logging_steps=_lines_every(settings.steps, save_every),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_every,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs are several processes
    return arguments


def _lines_every(steps: int, save_every: int) -> int:
    """About twenty lines a run, and one at each resume state, so that a resumed run says the same."""
    wanted = min(max(1, steps // 20), 500)
    whole = [number for number in range(1, min(save_every, 100 * wanted) + 1) if save_every % number == 0]
    return min(whole, key=lambda number: abs(math.log(number / wanted)))


def check_finite(model: nn.Module, step: int) -> None:
    """Sees to it that no trained weight is lost.

    Raises:
        HyperFormerError: one is no longer finite.
    """
    for name, tensor in trained_tensors(model).items():
        if not tensor.isfinite().all():
            raise HyperFormerError(
                f"the weights are no longer finite after step {step} (the first is {name}); {LOWER_RATE}"
            )


class Sealed(TrainerCallback):
    """Writes into each resume state what its files are, once all are there; only then the one before it goes."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        gathered(None)  # every rank has written its random state
        if args.process_index:
            return
        new = self._state / f"{PREFIX}{state.global_step}"
        seal = {name: sha256(new / name) for name in _parts(new)}
        (new / "seal.new").write_text(json.dumps(seal, indent=1, sort_keys=True), encoding="utf-8")
        (new / "seal.new").replace(new / SEAL)
        for other in _folders(self._state):
            if other != new:
                shutil.rmtree(other)


def _parts(folder: Path) -> list[str]:
    """The files of a resume state that its seal names: all but the random states of several ranks."""
    own = (path.name for path in folder.iterdir() if path.name != SEAL and not path.name.startswith("rng_state_"))
    return sorted(own)


def _is_whole(folder: Path, ranks: int) -> bool:
    """Whether a resume state is all that was written, by every rank."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        whole = {name: sha256(folder / name) for name in _parts(folder)} == seal
    except (OSError, ValueError):
        return False
    return whole and (ranks == 1 or all((folder / f"rng_state_{rank}.pth").exists() for rank in range(ranks)))


def _folders(state: Path) -> list[Path]:
    """The resume states in a folder, by step."""
    found = [path for path in state.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def _last_state(state: Path, ranks: int) -> Path | None:
    """The last whole resume state; what is not whole is not used, and said so."""
    for folder in reversed(_folders(state)):
        if _is_whole(folder, ranks):
            return folder
        log.info("%s is not whole and is not used", folder)
    return None
