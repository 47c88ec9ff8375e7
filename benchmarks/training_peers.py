"""A T5 that learns by HyperFormer++ and by what else would train it: one step each, on the same sizes and weights.

Every step is zero_grad, forward, backward, clipping to norm 1 and AdamW over what is trained, as the engine's, in
float32 with T5's own dropout. All but fine-tuning train T5's layer norms too, as `T5Backbone.freeze` leaves them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from t5_contenders import SIZES
from torch import nn

OURS, MIXED, BF16 = "HyperFormer++, one task", "HyperFormer++, mixed tasks", "HyperFormer++, mixed tasks, bf16"
GENERATING = "generating 8 tasks' weights alone"
PLAIN = {"fine-tuning everything": "", "layer norms alone": "layer_norm.weight"}  # what their names end in
LENGTH, TARGET = 64, 4  # tokens of every source and of every target
LORA_RANK = 8
WINDOW = 1  # a round is one step of each
GLUE = Path(__file__).parents[1] / "conf" / "glue"
SETTINGS: dict[str, Any] = yaml.safe_load((GLUE / "parameters.yml").read_text())


@dataclass
class Contender:
    """`step` takes the number of the step; `trained` counts parameters, `tokens` those of a source, with padding."""

    step: Callable[[int], Any]
    trained: int = 0
    tokens: float = LENGTH


def make(folder: Path, _: Any = None) -> None:
    """Writes t5-small with random weights, and a tokenizer that knows the answers of GLUE."""
    from transformers import T5Config, T5ForConditionalGeneration

    from hyperformer.backbones import t5

    torch.manual_seed(0)
    config = T5Config(**SIZES["t5-small"], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    T5ForConditionalGeneration(config).save_pretrained(folder / "t5")
    words = [f"w{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    t5.train_tokenizer([" ".join(words)] * 3, 300).save_pretrained(folder / "t5")


def ours(folder: Path, label_smoothing: float = 0.0) -> Any:
    """HyperFormer++ as conf/glue has it, on that T5."""
    from hyperformer.config import BackboneSettings, Methods, Tasks
    from hyperformer.model import MultiTaskModel

    backbone = BackboneSettings(**{**SETTINGS["backbone"], "path": str(folder / "t5")})
    tasks = Tasks(yaml.safe_load((GLUE / "parameters_tasks.yml").read_text())["tasks"])
    torch.manual_seed(0)
    method = Methods(**SETTINGS["methods"]).named("hyperformer_plus_plus")
    return owned(MultiTaskModel(backbone, method, tasks, label_smoothing).train())


def owned(model: nn.Module) -> nn.Module:
    """Parameters in memory of their own: what is mapped from a file would be read, and counted, at the first step."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def stepping(model: nn.Module, loss: Callable[[int], torch.Tensor]) -> Contender:
    """A step of the engine's on what requires gradients."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.0)  # as the Trainer's adamw_torch

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss(number).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return Contender(step, sum(p.numel() for p in trained))


def drawn(number: int, rows: int) -> dict[str, torch.Tensor]:
    """The batch of a step: random ids, so that nothing is ever learned and gradients stay of one size."""
    draw = np.random.default_rng(number)
    source, labels = (torch.from_numpy(draw.integers(100, 32000, (rows, n))) for n in (LENGTH, TARGET))
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels}


def contenders(folder: Path, rows: int, only: str | None = None) -> dict[str, Contender]:
    """What is compared, by name; `only` makes one. What the machine does not have is left out.

    Without instructions for bf16 a step takes minutes, and the engine's own `precision: auto` would not take it.
    """
    from hyperformer.training.engine import wants_bf16

    makers: dict[str, Callable[[], Contender]] = {
        OURS: lambda: hyperformer(folder, rows, tasks=1),
        MIXED: lambda: hyperformer(folder, rows, tasks=8),
        **({BF16: lambda: hyperformer(folder, rows, tasks=8, bf16=True)} if wants_bf16("auto") else {}),
        GENERATING: lambda: generating(folder),
        "adapters: bottlenecks": lambda: adapter_hub(folder, rows),
        f"PEFT: LoRA, r={LORA_RANK}": lambda: lora(folder, rows),
        **{name: lambda ending=ending: plain(folder, rows, ending) for name, ending in PLAIN.items()},
    }
    found = {}
    for name, maker in makers.items():
        if only in (None, name):
            try:
                found[name] = maker()
            except ImportError as error:
                if error.name not in ("adapters", "peft"):
                    raise
    return found


def hyperformer(folder: Path, rows: int, tasks: int, bf16: bool = False) -> Contender:
    """Our own step, with as many rows of each of `tasks` tasks."""
    model = ours(folder)
    task_ids = torch.arange(rows) * tasks // rows

    def loss(number: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(task_ids, **drawn(number, rows))["loss"].float()

    return stepping(model, loss)


def generating(folder: Path) -> Contender:
    """What of a step of mixed tasks goes into writing adapters, forward and backward."""
    method = ours(folder).method
    tasks = torch.arange(8)
    gradients = [torch.randn_like(part) for part in vars(method.weights(tasks)).values()]

    def step(_: int) -> None:
        method.zero_grad()
        torch.autograd.backward(list(vars(method.weights(tasks)).values()), gradients)

    return Contender(step)


def loaded(folder: Path) -> Any:
    from transformers import T5ForConditionalGeneration

    return owned(T5ForConditionalGeneration.from_pretrained(folder / "t5"))


def peer(model: Any, rows: int, ending: str = "layer_norm.weight") -> Contender:
    """Any model that takes what a T5 takes; parameters whose names end so are trained beside what already is."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.endswith(ending))
    # without a cache: the Trainer's users often forget it, and it only costs
    return stepping(model.train(), lambda number: model(**drawn(number, rows), use_cache=False).loss)


def plain(folder: Path, rows: int, ending: str) -> Contender:
    return peer(loaded(folder).requires_grad_(False), rows, ending)


def adapter_hub(folder: Path, rows: int) -> Contender:
    """x + LN(U act(D x)) after self-attention and feed-forward: the computation and the sizes of ours."""
    import adapters

    model = loaded(folder)
    adapters.init(model)
    method = SETTINGS["methods"]["hyperformer_plus_plus"]
    config = adapters.DoubleSeqBnConfig(
        reduction_factor=method["reduction_factor"], non_linearity="gelu_new", ln_after=True, init_weights="houlsby"
    )
    model.add_adapter("one", config=config)
    model.train_adapter("one")
    return peer(model, rows)


def lora(folder: Path, rows: int) -> Contender:
    import peft

    targets = ["q", "k", "v", "o", "wi", "wo"]
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules=targets)
    return peer(peft.get_peft_model(loaded(folder), config), rows)


def table(runs: list[dict[str, Any]], rows: int, memory: dict[str, float]) -> str:
    """Medians over processes in Markdown, and how many times longer than our step of one task each takes."""
    lines = ["| step | trained, K | ms | times | rows/s | MB |", "| --- | --- | --- | --- | --- | --- |"]
    medians = {name: float(np.median([np.median(run[name]["seconds"]) for run in runs])) for name in runs[0]}

    def ratio(one: str, other: str) -> float:
        return float(np.median([np.median(run[one]["seconds"]) / np.median(run[other]["seconds"]) for run in runs]))

    for name, seconds in medians.items():
        if name != GENERATING:
            words = [f"{runs[0][name]['trained'] / 1e3:.0f}", f"{1e3 * seconds:.0f}", f"{ratio(name, OURS):.3f}"]
            words += [f"{rows / seconds:.1f}", f"{memory[name]:.0f}" if name in memory else "-"]
            lines.append(f"| {name} | {' | '.join(words)} |")
    said = f"generating weights takes {ratio(GENERATING, MIXED):.1%} of a step of mixed tasks"
    faster = f"float32 / bf16: {ratio(MIXED, BF16):.2f}" if BF16 in runs[0] else "no bf16: no instructions for it here"
    return "\n".join([*lines, "", f"{said}; {faster}"])
