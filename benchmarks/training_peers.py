"""Training steps of HyperFormer++ and of other methods and implementations, on the same T5 with the same weights.

As in our training loop, a step consists of zero_grad, forward, backward, clipping to norm 1 and AdamW over the
trainable parameters, in float32 with T5's dropout. Two steps differ: `BF16` computes in bf16, and `GENERATION` only
generates the weights, forward and backward, without an update. The steps of `FINE_TUNING` train all parameters or only
the layer norms. All other steps train the layer norms, which `T5Backbone.freeze` leaves trainable, besides the
method's own parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from t5_peers import SIZES
from torch import nn

OURS = "HyperFormer++, one task"
MIXED = "HyperFormer++, mixed tasks"
BF16 = "HyperFormer++, mixed tasks, bf16"
GENERATION = "generating the weights of 8 tasks only"
FINE_TUNING = {"fine-tuning all parameters": "", "fine-tuning layer norms only": "layer_norm.weight"}
"""Step → suffix of the names of the trainable parameters; the empty suffix matches all parameters."""
LENGTH = 64  # number of tokens of every source
TARGET = 4  # number of tokens of every target
LORA_RANK = 8
WINDOW = 1  # number of steps of each method in a round
GLUE = Path(__file__).parents[1] / "conf" / "glue"
SETTINGS: dict[str, Any] = yaml.safe_load((GLUE / "parameters.yml").read_text())


@dataclass
class TrainingStep:
    """A training step to time: `step` takes the number of the step."""

    step: Callable[[int], Any]
    trainable: int = 0
    """Number of trainable parameters."""
    tokens: float = LENGTH
    """Mean number of tokens of a source, including padding."""


def write_inputs(folder: Path, _: Any = None) -> None:
    """Write a T5 of t5-small's size with random weights, and a tokenizer trained on artificial words."""
    from transformers import T5Config, T5ForConditionalGeneration

    from hyperformer.backbones import t5_tokenizers

    torch.manual_seed(0)
    config = T5Config(**SIZES["t5-small"], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    T5ForConditionalGeneration(config).save_pretrained(folder / "t5")
    word_list = [f"w{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    t5_tokenizers.train_tokenizer([" ".join(word_list)] * 3, 300).save_pretrained(folder / "t5")


def load_hyperformer(folder: Path, label_smoothing: float = 0.0) -> Any:
    """Return HyperFormer++ with the tasks and settings of conf/glue, on the T5 that `write_inputs` wrote."""
    from hyperformer.model.multi_task import MultiTaskModel
    from hyperformer.settings import BackboneSettings, Methods, Tasks

    backbone = BackboneSettings(**{**SETTINGS["backbone"], "path": str(folder / "t5")})
    tasks = Tasks(yaml.safe_load((GLUE / "parameters_tasks.yml").read_text())["tasks"])
    torch.manual_seed(0)
    method = Methods(SETTINGS["methods"]).get_method("hyperformer_plus_plus")
    return copy_parameters(MultiTaskModel(backbone, method, tasks, label_smoothing).train())


def copy_parameters(model: nn.Module) -> nn.Module:
    """Copy a model's parameters in place: memory-mapped parameters would be read, and counted, in the first step."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def make_step(model: nn.Module, loss: Callable[[int], torch.Tensor]) -> TrainingStep:
    """Return a step like those of our training loop, on all parameters that require gradients.

    Args:
        model: The model.
        loss: A function from the number of the step to the loss.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=3e-4, weight_decay=0.0)  # as `adamw_torch` of the Trainer

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss(number).backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()

    return TrainingStep(step, sum(p.numel() for p in trainable))


def random_batch(number: int, rows: int) -> dict[str, torch.Tensor]:
    """Return a step's batch of random ids: nothing can be learned from them, so gradients keep their size."""
    draw = np.random.default_rng(number)
    source, labels = (torch.from_numpy(draw.integers(100, 32000, (rows, n))) for n in (LENGTH, TARGET))
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels}


def make_steps(folder: Path, rows: int, only: str | None = None) -> dict[str, TrainingStep]:
    """Return the training steps to compare, by name; steps that need a missing library are omitted.

    The bf16 step is omitted if the CPU has no instructions for bf16: it would take minutes, and `precision: auto` would
    choose float32.

    Args:
        folder: The folder that `write_inputs` wrote.
        rows: Number of rows in a batch.
        only: The name of the only step to create; by default all steps are created.
    """
    from hyperformer.training.trainer import uses_bf16

    makers: dict[str, Callable[[], TrainingStep]] = {
        OURS: lambda: hyperformer(folder, rows, tasks=1),
        MIXED: lambda: hyperformer(folder, rows, tasks=8),
        **({BF16: lambda: hyperformer(folder, rows, tasks=8, bf16=True)} if uses_bf16("auto") else {}),
        GENERATION: lambda: generation(folder),
        "adapters: bottlenecks": lambda: adapter_hub(folder, rows),
        f"PEFT: LoRA, r={LORA_RANK}": lambda: lora(folder, rows),
        **{name: lambda suffix=suffix: fine_tuning(folder, rows, suffix) for name, suffix in FINE_TUNING.items()},
    }
    steps = {}
    for name, maker in makers.items():
        if only in (None, name):
            try:
                steps[name] = maker()
            except ImportError as error:
                if error.name not in ("adapters", "peft"):
                    raise
    return steps


def hyperformer(folder: Path, rows: int, tasks: int, bf16: bool = False) -> TrainingStep:
    """Return a step of HyperFormer++ on `rows` rows, the same number of rows of each task."""
    model = load_hyperformer(folder)
    task_ids = torch.arange(rows) * tasks // rows

    def loss(number: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(task_ids, **random_batch(number, rows))["loss"].float()

    return make_step(model, loss)


def generation(folder: Path) -> TrainingStep:
    """Return the part of a step on rows of eight tasks that generates the adapters, forward and backward."""
    method = load_hyperformer(folder).method
    tasks = torch.arange(8)
    gradients = [torch.randn_like(weight) for weight in vars(method.weights(tasks)).values()]

    def step(_: int) -> None:
        method.zero_grad()
        torch.autograd.backward(list(vars(method.weights(tasks)).values()), gradients)

    return TrainingStep(step)


def load_t5(folder: Path) -> Any:
    """Return the T5 that `write_inputs` wrote."""
    from transformers import T5ForConditionalGeneration

    return copy_parameters(T5ForConditionalGeneration.from_pretrained(folder / "t5"))


def make_t5_step(model: Any, rows: int, suffix: str = "layer_norm.weight") -> TrainingStep:
    """Return a step of any model that has the inputs of a T5.

    Args:
        model: The model.
        rows: Number of rows in a batch.
        suffix: Parameters whose names end with this suffix are trained too.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.endswith(suffix))
    # the key-value cache costs time, and training does not use it
    return make_step(model.train(), lambda number: model(**random_batch(number, rows), use_cache=False).loss)


def fine_tuning(folder: Path, rows: int, suffix: str) -> TrainingStep:
    """Return a step of fine-tuning the parameters whose names end with `suffix`."""
    return make_t5_step(load_t5(folder).requires_grad_(False), rows, suffix)


def adapter_hub(folder: Path, rows: int) -> TrainingStep:
    """Return a step of AdapterHub's x + LN(U act(D x)) after self-attention and feed-forward, with our sizes."""
    import adapters

    model = load_t5(folder)
    adapters.init(model)
    method = SETTINGS["methods"]["hyperformer_plus_plus"]
    config = adapters.DoubleSeqBnConfig(
        reduction_factor=method["reduction_factor"], non_linearity="gelu_new", ln_after=True, init_weights="houlsby"
    )
    model.add_adapter("adapter", config=config)
    model.train_adapter("adapter")
    return make_t5_step(model, rows)


def lora(folder: Path, rows: int) -> TrainingStep:
    """Return a step of PEFT's LoRA on all linear layers of attention and feed-forward."""
    import peft

    targets = ["q", "k", "v", "o", "wi", "wo"]
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules=targets)
    return make_t5_step(peft.get_peft_model(load_t5(folder), config), rows)


def table(runs: list[dict[str, Any]], rows: int, memory: dict[str, float]) -> str:
    """Format medians over processes as Markdown, with the ratio of each step's time to that of our step on one task.

    Args:
        runs: One entry per process: the seconds and sizes of each step, by name.
        rows: Number of rows in a batch.
        memory: The memory of each step in MB, by name.
    """
    lines = ["| step | trainable, K | ms | ratio | rows/s | MB |", "| --- | --- | --- | --- | --- | --- |"]
    medians = {name: float(np.median([np.median(run[name]["seconds"]) for run in runs])) for name in runs[0]}

    def ratio(name: str, other: str) -> float:
        return float(np.median([np.median(run[name]["seconds"]) / np.median(run[other]["seconds"]) for run in runs]))

    for name, seconds in medians.items():
        if name != GENERATION:
            texts = [f"{runs[0][name]['trainable'] / 1e3:.0f}", f"{1e3 * seconds:.0f}", f"{ratio(name, OURS):.3f}"]
            texts += [f"{rows / seconds:.1f}", f"{memory[name]:.0f}" if name in memory else "-"]
            lines.append(f"| {name} | {' | '.join(texts)} |")
    share = f"generating weights takes {ratio(GENERATION, MIXED):.1%} of a step on rows of eight tasks"
    bf16 = (
        f"float32 / bf16: {ratio(MIXED, BF16):.2f}"
        if BF16 in runs[0]
        else "no bf16: the CPU has no instructions for it"
    )
    return "\n".join([*lines, "", f"{share}; {bf16}"])
