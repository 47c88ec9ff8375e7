"""The training engine: fine-tuning over a mixture of tasks and span-corruption pretraining, on transformers' Trainer.

What a batch holds is a pure function of (seed, step): a stopped run that resumes sees exactly the batches that it would
have seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hyperformer import backbones, evaluation, manifest, methods, tasks
from hyperformer.config import (
    BackboneSettings,
    LoopSettings,
    MethodSettings,
    PretrainingSettings,
    Tasks,
    TrainingSettings,
)
from hyperformer.data import Rows, Writer, gathered, generator, read_rows, read_tokens, write_tokens
from hyperformer.model import MultiTaskModel, restore, trained_tensors
from hyperformer.progress import bar, watched

log = logging.getLogger(__name__)

FINISHED = "finished"
GROUPED_BATCHES = 16


class Permutations:
    """Row numbers 0..rows-1 in an endless sequence of shuffled passes; a pure function of (seed, stream, position)."""

    def __init__(self, rows: int, seed: int, *stream: int) -> None:
        self.rows, self._key = rows, (seed, *stream)
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        number, place = divmod(position, self.rows)
        if number != self._pass:
            self._pass, self._order = number, generator(*self._key, number).permutation(self.rows)
        return int(self._order[place])


class Steps(Dataset[dict[str, Tensor]]):
    """The batches of a run from step `first` on: item i is the batch of step `first` + i."""

    def __init__(self, batch: Callable[[int], dict[str, Tensor]], first: int, steps: int) -> None:
        self._batch, self._first, self._steps = batch, first, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._batch(self._first + index)


class _Loop(Trainer):
    """Trainer over `Steps`: the loader hands out whole batches, in order."""

    def __init__(self, batch: Callable[[int], dict[str, Tensor]], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = False  # a batch is all that it is given
        self._batch, self._model = batch, arguments["model"]
        self.first_step = 0

    def get_train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        steps = Steps(self._batch, self.first_step, self.args.max_steps - self.first_step)
        # a generator of its own: the loader would draw from the random state that a resumed run has just restored
        loader = DataLoader(steps, batch_size=None, shuffle=False, num_workers=0, generator=torch.Generator())
        return self.accelerator.prepare(loader)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Trained tensors only, each once: tied weights break the plain way."""
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_tensors(self._model), folder / "trained.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore(self._model, load_file(Path(resume_from_checkpoint) / "trained.safetensors"))


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
    """A bar on a terminal, and a line every so often: step, loss, and the time that is left."""

    def __init__(self) -> None:
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
        if logs and "loss" in logs:
            step, began = self._start
            left = (time.monotonic() - began) / (state.global_step - step) * (state.max_steps - state.global_step)
            minutes, seconds = divmod(round(left), 60)
            log.info(
                "step %d of %d  loss %.4f  %d:%02d left",
                state.global_step,
                state.max_steps,
                logs["loss"],
                minutes,
                seconds,
            )


def run_loop(
    model: nn.Module,
    batch: Callable[[int], dict[str, Tensor]],
    settings: LoopSettings,
    seed: int,
    state: Path,
    callbacks: Sequence[TrainerCallback] = (),
    save_every: int = 1000,
) -> None:
    """Trains what requires gradients in `model`, whose forward takes a batch and returns {"loss"}.

    Args:
        batch: the batch of a step, a pure function of the step.
        state: a folder for resume states; where it holds one, the run goes on from there.
    """
    arguments = TrainingArguments(
        output_dir=str(state),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=wants_bf16(settings.precision),
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=max(1, min(500, settings.steps // 20)),
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,
    )
    if (state / FINISHED).exists():
        return
    set_seed(seed)
    loop = _Loop(batch, model=model, args=arguments, callbacks=[*callbacks, Progress()])
    loop.remove_callback(PrinterCallback)  # type: ignore[no-untyped-call]
    resume = _last_state(state)
    if resume is not None:
        loop.first_step = int(resume.name.partition("-")[2])
        log.info("going on from step %d in %s", loop.first_step, state)
    loop.train(resume_from_checkpoint=str(resume) if resume else None)
    (state / FINISHED).touch()


def _last_state(state: Path) -> Path | None:
    whole = [path.parent for path in state.glob("checkpoint-*/trainer_state.json")]  # the file that is written last
    return max(whole, key=lambda folder: int(folder.name.partition("-")[2]), default=None)


def corrupt(
    ids: Sequence[int], sentinels: Sequence[int], settings: PretrainingSettings, rng: np.random.Generator
) -> Any:
    """Span corruption (Raffel et al. 2020, section 3.1.4): random spans become sentinels, and are the target.

    Args:
        ids: the tokens of a text, without </s>.
    Returns:
        (source, target) token ids without </s>.
    """
    noisy = min(max(round(len(ids) * settings.noise_density), 1), len(ids) - 1)
    spans = min(max(round(noisy / settings.mean_span), 1), len(sentinels), noisy, len(ids) - noisy)
    lengths = _composition(noisy, spans, rng)
    gaps = _composition(len(ids) - noisy, spans, rng)
    source: list[int] = []
    target: list[int] = []
    start = 0
    for sentinel, gap, length in zip(sentinels, gaps, lengths, strict=False):
        source += [*ids[start : start + gap], sentinel]
        target += [sentinel, *ids[start + gap : start + gap + length]]
        start += gap + length
    return source, target


def _composition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """`total` as a random ordered sum of `parts` positive numbers."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.empty(0, dtype=np.int64)
    return [int(n) for n in np.diff(np.concatenate([[0], cuts, [total]]))]


def length_grouped(lengths: Sequence[int], batch_size: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row numbers in an order whose batches hold rows of like length: less padding, and so less work.

    Rows move within stretches of `GROUPED_BATCHES` batches only, so that what comes early stays early; the batches of a
    stretch come in random order.
    """
    stretch = GROUPED_BATCHES * batch_size
    order = []
    for number, start in enumerate(range(0, len(lengths), stretch)):
        rows = start + np.argsort(lengths[start : start + stretch], kind="stable")
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        whole = len(rows) // batch_size  # a last batch with too few rows stays last
        order += [batches[i] for i in generator(seed, "lengths", number).permutation(whole)] + batches[whole:]
    return np.concatenate(order)


class _Language(nn.Module):
    """A backbone with its own loss on top, as the loop wants it."""

    def __init__(self, backbone: backbones.Backbone, label_smoothing: float) -> None:
        super().__init__()
        self.backbone, self.label_smoothing = backbone, label_smoothing

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {"loss": self.backbone.loss(batch, self.label_smoothing).mean()}


def pretrain(corpus: Rows, settings: PretrainingSettings, inputs: Sequence[Path], seed: int, states: Path) -> Writer:
    """Makes a small T5 and its tokenizer from text; an interrupted run of the same work goes on.

    Args:
        corpus: rows of `source` and `target` texts, taken in order but for grouping by length; where `target` is empty,
            `source` is span-corrupted, anew at each pass.
        inputs: files and folders that the corpus was made from; a state of other ones is not used.
        states: a folder for resume states, outside of what is published.
    Returns:
        What writes the backbone, in transformers' layout and half precision, with its card.
    """
    began = time.monotonic()
    state = fresh_state(states / "pretrain", [settings], inputs, seed)
    texts = (text for row in watched(corpus, "reading words", len(corpus)) for text in row.values() if text)
    tokenizer = backbones.train_tokenizer(texts, settings.vocabulary)
    rows = _tokens(tokenizer, corpus, settings.max_tokens)
    sentinels = [int(tokenizer.vocab[f"<extra_id_{i}>"]) for i in range(backbones.SENTINELS)]
    set_seed(seed)
    backbone = backbones.new(tokenizer, settings.sizes.model_dump())
    eos = tokenizer.eos_token_id
    order = length_grouped([len(source) for source in rows["source"]], settings.batch_size, seed)

    def batch(step: int) -> dict[str, Tensor]:
        encoded = []
        positions = range(step * settings.batch_size, (step + 1) * settings.batch_size)
        chosen = rows[[order[position % len(rows)] for position in positions]]
        for position, source, target in zip(positions, chosen["source"], chosen["target"], strict=True):
            if len(target) > 1:
                encoded.append({"input_ids": source, "labels": target})
            else:  # nothing but </s>
                cut, spans = corrupt(source[:-1], sentinels, settings, generator(seed, position))
                encoded.append({"input_ids": [*cut, eos], "labels": [*spans, eos]})
        return backbone.collate(encoded, [0] * len(encoded)).tensors

    size = sum(p.numel() for p in backbone.parameters())
    log.info("pretraining %.2f M parameters, vocabulary %d, on %d rows", size / 1e6, len(tokenizer), len(rows))
    run_loop(_Language(backbone, settings.label_smoothing), batch, settings, seed, state)

    def write(folder: Path) -> None:
        backbone.save(folder)
        (folder / "README.md").write_text(_card(settings, seed, size, len(tokenizer)), encoding="utf-8")
        shutil.rmtree(state)

    log.info("pretrained in %.0f minutes", (time.monotonic() - began) / 60)
    return write


def _tokens(tokenizer: PreTrainedTokenizerFast, corpus: Rows, longest: int) -> Rows:
    """The token ids of both texts of every row, cut to `longest`."""

    def encoded() -> Iterator[dict[str, list[int]]]:
        for chunk in corpus.iter(1000):
            sources, targets = (
                tokenizer(chunk[key], truncation=True, max_length=longest)["input_ids"] for key in ("source", "target")
            )
            for source, target in zip(sources, targets, strict=True):
                yield {"source": source, "target": target}

    ids = pa.list_(pa.int32())
    return gathered(watched(encoded(), "encoding", len(corpus)), pa.schema([("source", ids), ("target", ids)]))


def _card(settings: PretrainingSettings, seed: int, size: int, vocabulary: int) -> str:
    if settings.text:
        source = (
            f"{Path(settings.text).name} and the tasks' training texts: span corruption, and the objectives that "
            "`hyperformer.plaintext` makes of the texts themselves"
        )
    else:
        source = (
            "the embedded language: span corruption of documents, and the supervised auxiliary objectives that "
            "`hyperformer.embedded.corpus` names, in the order of its lessons"
        )
    listed = "\n".join(f"- {name}: {value}" for name, value in settings.model_dump().items())
    return f"""# A small T5 made by `kedro run --pipelines pretrain`

{size / 1e6:.2f} M parameters, {vocabulary} tokens, weights in half precision. Seed {seed}.
Pretrained on {source}.

{listed}
"""


def task_shares(rows: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Each task's share of the batches, proportional to weight · rows^(1/temperature) (HyperFormer, section 4)."""
    shares = {task: weights[task] * count ** (1.0 / temperature) for task, count in rows.items()}
    total = sum(shares.values())
    return {task: share / total for task, share in shares.items()}


class TaskSampler:
    """Which rows a step trains on: tasks by their shares, each task's rows in endless shuffled passes.

    A pure function of (seed, step).

    Args:
        rows: training rows of each task.
        shares: of each task, 1 together.
        steps: the last step that will be asked for, plus one.
    """

    def __init__(self, rows: Sequence[int], shares: Sequence[float], batch_size: int, seed: int, steps: int) -> None:
        self.shares = np.array(shares)
        draws = generator(seed, "tasks").choice(len(rows), size=(steps, batch_size), p=shares)
        self._tasks = draws.astype(np.int32)
        counts = np.stack([(self._tasks == task).sum(1) for task in range(len(rows))], axis=1)
        self._before = np.cumsum(counts, axis=0) - counts  # [steps, tasks]: rows drawn before a step
        self._rows = [Permutations(count, seed, 1, task) for task, count in enumerate(rows)]

    def __getitem__(self, step: int) -> list[tuple[int, int]]:
        """(task, row) of each place of the step's batch."""
        positions = self._before[step].copy()
        chosen = []
        for task in self._tasks[step].tolist():
            chosen.append((task, self._rows[task][int(positions[task])]))
            positions[task] += 1
        return chosen


class BestCheckpoint(TrainerCallback):
    """Validates every so often, keeps the trained tensors with the best mean metric, and stops when patience ends.

    What it knows is written beside the resume states, so that a resumed run goes on with it.
    """

    def __init__(
        self, model: MultiTaskModel, validation: Mapping[str, Rows], settings: TrainingSettings, state: Path
    ) -> None:
        self.model, self.validation, self.settings, self.state = model, validation, settings, state
        path = state / "history.json"
        self.history: list[dict[str, float]] = json.loads(path.read_text()) if path.is_file() else []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.history = [line for line in self.history if line["step"] <= state.global_step]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.settings.evaluate_every and state.global_step != state.max_steps:
            return
        results = {
            name: evaluation.evaluate(self.model.answer, self.model.tasks[name], rows)[0]
            for name, rows in self.validation.items()
        }
        self.model.train()
        mean = evaluation.mean_of(results)
        best = max((line["mean"] for line in self.history), default=float("-inf"))
        self.history.append(
            {"step": state.global_step, "mean": mean, **{name: result["mean"] for name, result in results.items()}}
        )
        collapsed = ", ".join(name for name, result in results.items() if result["collapsed"])
        said = ("  (best)" if mean > best else "") + (f"  one answer only: {collapsed}" if collapsed else "")
        log.info("step %d  validation mean %.2f%s", state.global_step, mean, said)
        if mean > best:
            save_file(trained_tensors(self.model), self.state / "best.new")
            (self.state / "best.new").replace(self.state / "best.safetensors")
        (self.state / "history.new").write_text(json.dumps(self.history))
        (self.state / "history.new").replace(self.state / "history.json")
        since = len(self.history) - 1 - int(np.argmax([line["mean"] for line in self.history]))
        if self.settings.patience is not None and since >= self.settings.patience:
            log.info("no better mean for %d validations; stopping", since)
            control.should_training_stop = True


def encode(rows: Path, settings: Tasks, backbone: BackboneSettings) -> Writer:
    """What writes the token ids of every task's training rows."""
    model = backbones.load(backbone)
    found = {
        name: model.encode([task.example(row) for row in read_rows(rows, name, "train")], backbone)
        for name, task in tasks.make(settings).items()
    }
    return write_tokens(found)


def train(
    rows: Path,
    tokens: Path,
    settings: Tasks,
    backbone: BackboneSettings,
    method: MethodSettings,
    training: TrainingSettings,
    seed: int,
    states: Path,
) -> tuple[Writer, list[dict[str, float]]]:
    """Trains the method's models, from where an interrupted run of the same settings, rows and code stopped.

    Where there are several, each takes its tasks' share of the steps, of the warm-up and of the steps between
    validations, so that every task sees as many rows as in one model for all.

    Args:
        rows: the folder of checked rows; the first `validation_rows` of each validation split choose the checkpoint.
        tokens: the folder of encoded training rows.
        states: a folder for resume states, outside of what is published.
    Returns:
        What writes the checkpoint, for each model that of the best mean validation metric; and a line a validation:
        step, mean, and every task's mean metric in percent.
    """
    encoded = {name: read_tokens(tokens, name) for name in settings.root}
    given = [settings, backbone, method, training]
    state = fresh_state(states / "train", given, [rows, tokens, Path(backbone.path)], seed)
    counts = {name: len(found) for name, found in encoded.items()}
    shares = task_shares(counts, {name: task.weight for name, task in settings.root.items()}, training.temperature)
    groups = methods.groups(method, list(settings.root))
    trained, histories = [], []
    for number, group in enumerate(groups):
        share = sum(shares[name] for name in group)
        if len(groups) > 1:
            log.info("model %d of %d: %s", number + 1, len(groups), ", ".join(group))
        set_seed(seed)
        model = MultiTaskModel(backbone, method, settings, training.label_smoothing, number)
        parts = {name: (encoded[name], shares[name] / share) for name in group}
        tensors, history = _train_one(model, parts, rows, _part(training, share), seed, state / str(number + 1))
        trained.append(tensors)
        histories.append(history)
    model = MultiTaskModel(backbone, method, settings)
    model.assemble(trained)

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        shutil.rmtree(state)

    return write, _merged(histories)


def _part(training: TrainingSettings, share: float) -> TrainingSettings:
    """The settings of a model that takes this share of the steps."""
    steps = {
        "steps": max(1, round(share * training.steps)),
        "warmup_steps": round(share * training.warmup_steps),
        "evaluate_every": max(1, round(share * training.evaluate_every)),
    }
    return training.model_copy(update=steps)


def _train_one(
    model: MultiTaskModel,
    parts: Mapping[str, tuple[Rows, float]],
    rows: Path,
    training: TrainingSettings,
    seed: int,
    state: Path,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Trains one model on the tokens and shares of its tasks: the trained tensors of the best validation, and all."""
    validation = {name: read_rows(rows, name, "validation") for name in parts}
    validation = {
        name: part.select(range(min(len(part), training.validation_rows))) for name, part in validation.items()
    }
    state.mkdir(exist_ok=True)
    best = BestCheckpoint(model, validation, training, state)
    batches = mixed_batches(model, parts, training, seed)
    run_loop(model, batches, training, seed, state, [best], training.evaluate_every)
    return load_file(state / "best.safetensors"), best.history


def _merged(histories: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The validations of several models as if they had gone on together: the n-th of each in one line."""
    merged = []
    for place in range(max(map(len, histories))):
        lines = [history[min(place, len(history) - 1)] for history in histories]
        scores = {name: line[name] for line in lines for name in line if name not in ("step", "mean")}
        step = sum(line["step"] for line in lines)
        merged.append({"step": step, "mean": float(np.mean(list(scores.values()))), **scores})
    return merged


def mixed_batches(
    model: MultiTaskModel, parts: Mapping[str, tuple[Rows, float]], settings: TrainingSettings, seed: int
) -> Callable[[int], dict[str, Tensor]]:
    """The batch of each step, rows of all tasks mixed; a pure function of (seed, step).

    Args:
        parts: each task's encoded training rows, and its share of the batches.
    """
    names = list(parts)
    tokens = [parts[name][0] for name in names]
    shares = [parts[name][1] for name in names]
    sampler = TaskSampler([len(part) for part in tokens], shares, settings.batch_size, seed, settings.steps)
    said = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info("training %d parameters on %d tasks (%s)", trained, len(names), said)

    def batch(step: int) -> dict[str, Tensor]:
        chosen = sampler[step]
        made = model.backbone.collate([tokens[task][row] for task, row in chosen], [task for task, _ in chosen])
        return {"task_ids": made.task_ids, **made.tensors}

    return batch


def fresh_state(states: Path, settings: Sequence[BaseModel], inputs: Sequence[Path], seed: int) -> Path:
    """The folder for resume states of exactly this work; states of other work in `states` are removed, and said so."""
    hashes = [manifest.folder_sha256(path) for path in [*inputs, Path(__file__).parent] if path.exists()]
    words = json.dumps([seed, [part.model_dump(mode="json") for part in settings], hashes], sort_keys=True)
    state = states / hashlib.sha256(words.encode()).hexdigest()[:16]
    for other in states.glob("*"):
        if other != state:
            log.info("a state of other settings, rows or code is not used: %s is removed", other)
            shutil.rmtree(other)
    state.mkdir(parents=True, exist_ok=True)
    return state
