"""Training steps of HyperFormer++ and of other implementations, on the same backbone and rows of the same lengths.

`benchmarks/training.py` runs this file, once per step and round, with the Python of the step's environment:

    PYTHON benchmarks/training_steps.py FOLDER STEP SOURCE SIZE THREADS

FOLDER contains the backbone that `write_inputs` wrote, and SOURCE is the folder of the package or of the authors' code.
The output is one line of JSON. As in our training loop, a step consists of forward and backward pass, clipping to norm
1 and AdamW, with dropout. All methods but full fine-tuning train the layer norms besides their own parameters.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import logging
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encoder_peers
import t5_peers
import torch
from torch import Tensor, nn

BATCH = 32  # number of rows in a batch
LORA_RANK = 8
METHOD = {
    "reduction_factor": 32,
    "task_embedding_dim": 64,
    "projector": {"hidden_dim": 128, "output_dim": 64},
}
SIZES = {"t5-small": t5_peers.SIZES["t5-small"], "minilm": encoder_peers.SIZES["minilm"]}
GLUE = {
    "cola": (3, [8, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 15, 16, 18, 20, 25]),
    "sst2": (3, [6, 6, 7, 8, 9, 9, 10, 12, 13, 14, 16, 18, 21, 25, 29, 39]),
    "mrpc": (3, [35, 41, 44, 47, 50, 52, 55, 57, 59, 62, 64, 66, 69, 72, 75, 82]),
    "qqp": (3, [21, 24, 25, 27, 28, 29, 31, 32, 33, 35, 37, 39, 43, 47, 54, 67]),
    "stsb": (5, [20, 22, 23, 24, 25, 26, 27, 29, 31, 33, 36, 40, 47, 54, 63, 74]),
    "mnli": (3, [17, 22, 25, 28, 31, 33, 36, 39, 41, 44, 48, 51, 55, 60, 67, 82]),
    "qnli": (3, [29, 33, 36, 39, 41, 44, 46, 48, 50, 53, 56, 59, 62, 67, 75, 93]),
    "rte": (3, [31, 38, 42, 46, 49, 52, 55, 59, 62, 67, 72, 81, 101, 123, 128, 128]),
}
"""Tokens of a target of each task of GLUE, and 16 quantiles of the tokens of a source, in MiniLM's vocabulary."""


@dataclass
class Step:
    """A training step to time.

    Attributes:
        model: the model.
        loss: the loss of a batch, given its tensors and the task ids of its rows.
        mixed: whether the rows of a batch are of all tasks; otherwise a batch has rows of one task.
    """

    model: nn.Module
    loss: Callable[[dict[str, Tensor], Tensor], Tensor]
    mixed: bool = False


def write_inputs(folder: Path, size: str) -> None:
    """Write a backbone with random weights, and a tokenizer."""
    from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

    from hyperformer.backbones import t5_tokenizers

    torch.manual_seed(0)
    if size == "t5-small":
        config = T5Config(**SIZES[size], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
        T5ForConditionalGeneration(config).save_pretrained(folder)
        word_list = [f"w{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
        t5_tokenizers.train_tokenizer([" ".join(word_list)] * 3, 300).save_pretrained(folder)
    else:
        BertModel(BertConfig(**SIZES[size]), add_pooling_layer=False).save_pretrained(folder)
        encoder_peers.make_tokenizer().save_pretrained(folder)


def make_batch(number: int, mixed: bool, is_t5: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Return the padded tensors of a batch with random token ids, and its task ids.

    Two times as many batches as tasks have the same number of rows of every task, whether the batches are mixed or not.
    """
    draw = torch.Generator().manual_seed(number)
    count = len(GLUE)
    task_ids = torch.arange(BATCH) % count if mixed else torch.full((BATCH,), number % count)
    targets, quantiles = zip(*GLUE.values(), strict=True)
    places = torch.randint(16, (BATCH,), generator=draw).tolist()
    lengths = torch.tensor([quantiles[task][place] for task, place in zip(task_ids.tolist(), places, strict=True)])
    mask = (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long()
    source = torch.randint(100, 30000, mask.shape, generator=draw) * mask
    if is_t5:
        wanted = torch.tensor(targets)[task_ids].unsqueeze(1)
        labels = torch.randint(100, 30000, (BATCH, int(wanted.max())), generator=draw)
        labels[torch.arange(labels.shape[1]) >= wanted] = -100
    else:
        labels = torch.randint(2, (BATCH, 1), generator=draw)
    return {"input_ids": source, "attention_mask": mask, "labels": labels}, task_ids


def measure(step: Step, is_t5: bool) -> dict[str, Any]:
    """Return the seconds of each step, the number of trained parameters, and the memory that training adds, in MB."""
    trained = [parameter for parameter in step.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.0)
    batches = [make_batch(number, step.mixed, is_t5) for number in range(2 * len(GLUE))]
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # otherwise the first step would reuse memory that loading freed
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the present value
    before = resident("VmRSS")
    seconds = []
    for number in range(-2, len(batches)):
        start = time.perf_counter()
        optimizer.zero_grad()
        step.loss(*batches[number]).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if number >= 0:
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "trained": sum(p.numel() for p in trained), "memory": resident("VmHWM") - before}


def resident(field: str) -> float:
    """Return a field of this process's status, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def copy_parameters(model: nn.Module) -> nn.Module:
    """Copy a model's parameters in place: memory-mapped parameters would be read, and counted, in the first step."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.train()


def hyperformer(folder: Path, is_t5: bool, mixed: bool = True, bf16: bool = False) -> Step:
    """Return a step of HyperFormer++ with the tasks of GLUE."""
    from hyperformer.model.multi_task import MultiTaskModel
    from hyperformer.settings import BackboneSettings, Methods, Tasks

    tasks = {
        name: {"text": "{text}", "kind": "classification", "label_column": "label", "labels": ["w0", "w1"],
               "metrics": ["accuracy"]}
        for name in GLUE
    }  # fmt: skip
    backbone = BackboneSettings(path=str(folder), max_source_tokens=128, max_target_tokens=8 if is_t5 else None)
    method = Methods.model_validate({"hyperformer_plus_plus": METHOD}).get_method("hyperformer_plus_plus")
    torch.manual_seed(0)
    model = copy_parameters(MultiTaskModel(backbone, method, Tasks(tasks), label_smoothing=0.1))

    def loss(tensors: dict[str, Tensor], task_ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            row_losses: Tensor = model(task_ids, **tensors)["row_losses"]
        return row_losses.float().mean()

    return Step(model, loss, mixed)


def load_plain(folder: Path, is_t5: bool) -> Any:
    """Return the backbone as a model of transformers; an encoder with a new classification head."""
    from transformers import AutoModelForSequenceClassification, T5ForConditionalGeneration

    if is_t5:
        return copy_parameters(T5ForConditionalGeneration.from_pretrained(folder))
    return copy_parameters(AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2))


def plain_step(model: Any, is_t5: bool, trains_norms: bool = True) -> Step:
    """Return a step of a model with the inputs of transformers."""
    for name, parameter in model.named_parameters():
        is_norm = "layer_norm" in name or "LayerNorm" in name or "classifier" in name
        parameter.requires_grad_(parameter.requires_grad or (trains_norms and is_norm))

    def loss(tensors: dict[str, Tensor], _: Tensor) -> Tensor:
        labels = tensors["labels"] if is_t5 else tensors["labels"].squeeze(1)
        options = {"use_cache": False} if is_t5 else {}  # the key-value cache takes time, and training does not use it
        value: Tensor = model(**{**tensors, "labels": labels}, **options).loss
        return value

    return Step(model.train(), loss)


def fine_tuning(folder: Path, is_t5: bool) -> Step:
    """Return a step of full fine-tuning."""
    return plain_step(load_plain(folder, is_t5), is_t5)


def adapter_hub(folder: Path, is_t5: bool) -> Step:
    """Return a step of AdapterHub's x + LN(U act(D x)) after self-attention and feed-forward, with our sizes."""
    import adapters

    model = load_plain(folder, is_t5)
    adapters.init(model)
    config = adapters.DoubleSeqBnConfig(
        reduction_factor=METHOD["reduction_factor"], non_linearity="gelu_new", ln_after=True, init_weights="houlsby"
    )
    model.add_adapter("adapter", config=config)
    model.train_adapter("adapter")
    return plain_step(model, is_t5)


def lora(folder: Path, is_t5: bool) -> Step:
    """Return a step of PEFT's LoRA on all linear layers of attention and feed-forward."""
    import peft

    targets = ["q", "k", "v", "o", "wi", "wo"] if is_t5 else ["query", "key", "value", "dense"]
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules=targets)
    return plain_step(peft.get_peft_model(load_plain(folder, is_t5), config), is_t5)


def authors(_: Path, __: bool) -> Step:
    """Return a step of the authors' HyperFormer++ with the sizes of `METHOD`, on a new T5 of t5-small's size."""
    for name in ("hyperformer", "hyperformer.third_party", "hyperformer.third_party.models"):
        package = types.ModuleType(name)  # without the package's own imports, some of which no longer exist
        package.__path__ = [str(Path(sys.path[0], *name.split(".")))]
        sys.modules[name] = package
    torch.optim.lr_scheduler.SAVE_STATE_WARNING = ""  # type: ignore[attr-defined]  # transformers 3.5.1 imports it
    configuration = importlib.import_module("hyperformer.third_party.models.configuration_t5")
    sys.modules["hyperformer.third_party.models"].T5Config = configuration.T5Config  # type: ignore[attr-defined]
    settings = importlib.import_module("hyperformer.adapters").MetaAdapterConfig()
    modeling = importlib.import_module("hyperformer.third_party.models.modeling_t5")
    values = {
        "tasks": list(GLUE),
        "input_dim": 512,
        "d_model": 512,
        "task_embedding_dim": METHOD["task_embedding_dim"],
        "projected_task_embedding_dim": METHOD["projector"]["output_dim"],
        "reduction_factor": METHOD["reduction_factor"],
        "conditional_layer_norm": True,
        "efficient_unique_hyper_net": True,
        "train_task_embeddings": True,
        "non_linearity": "gelu_new",
        "device": torch.device("cpu"),
        "task_to_embeddings": None,
    }
    for name, value in values.items():
        setattr(settings, name, value)
    config = configuration.T5Config(**SIZES["t5-small"], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    config.train_adapters = True
    model = modeling.T5ForConditionalGeneration(config, adapter_config=settings).train()
    trained = ("adapter", "hyper", "task_embedding", "layer_norm", "layernorm")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))
    cross_entropy = nn.CrossEntropyLoss(ignore_index=-100, label_smoothing=0.1)

    def loss(tensors: dict[str, Tensor], task_ids: Tensor) -> Tensor:
        labels = tensors["labels"]
        decoder = torch.zeros_like(labels)
        decoder[:, 1:] = labels[:, :-1].clamp(min=0)
        logits = model(
            input_ids=tensors["input_ids"],
            attention_mask=tensors["attention_mask"],
            decoder_input_ids=decoder,
            task=list(GLUE)[int(task_ids[0])],
            task_embedding=None,
            use_cache=False,
            return_dict=True,
        ).logits
        value: Tensor = cross_entropy(logits.flatten(0, 1), labels.flatten())
        return value

    return Step(model, loss)


STEPS: dict[str, Callable[..., Step]] = {
    "hyperformer": hyperformer,
    "hyperformer-one-task": lambda folder, is_t5: hyperformer(folder, is_t5, mixed=False),
    "hyperformer-bf16": lambda folder, is_t5: hyperformer(folder, is_t5, bf16=True),
    "fine-tuning": fine_tuning,
    "adapters": adapter_hub,
    "peft": lora,
    "authors": authors,
}
"""The function that creates a step, by the step's name."""


def main() -> None:
    """Time a step and print the result."""
    folder, name, source, size, threads = sys.argv[1:]
    sys.path.insert(0, source)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(threads))
    is_t5 = size == "t5-small"
    print(json.dumps(measure(STEPS[name](Path(folder), is_t5), is_t5)))


if __name__ == "__main__":
    main()
