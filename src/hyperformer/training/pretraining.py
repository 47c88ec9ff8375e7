"""Pretraining of a small T5 and its tokenizer, by span corruption and text-to-text pairs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, set_seed

from hyperformer import backbones
from hyperformer.core.cpus import use_threads
from hyperformer.core.progress import track
from hyperformer.core.rng import make_rng
from hyperformer.data.storage import Rows, Writer, collect_rows
from hyperformer.model.tensors import ParameterGroup
from hyperformer.settings import PretrainingSettings
from hyperformer.training.batches import TrainingJob, TrainingRow
from hyperformer.training.sampling import group_by_length
from hyperformer.training.states import compute_fingerprint, lock_states, prepare_state
from hyperformer.training.trainer import run_loop

log = logging.getLogger(__name__)


class _LanguageModel(nn.Module):
    """A backbone and its language modeling loss, with the forward that the training loop calls."""

    def __init__(self, backbone: backbones.Backbone, label_smoothing: float) -> None:
        super().__init__()
        self.backbone, self.label_smoothing = backbone, label_smoothing

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the loss of each row."""
        return {"row_losses": self.backbone.loss(batch, self.label_smoothing)}


def pretrain(
    corpus: Rows,
    settings: PretrainingSettings,
    inputs: Mapping[str, Path],
    seed: int,
    states: Path,
    threads: int | None = None,
) -> Writer:
    """Train a small T5 and its tokenizer from text, resuming an interrupted run.

    Args:
        corpus: rows of `source` and `target` texts. Their order is the order of training, except that nearby rows are
            grouped by length. If `target` is empty, `source` is span-corrupted, differently in each pass.
        settings: settings of the model and its training.
        inputs: files and folders that the corpus was generated from, by name, for the run's fingerprint.
        seed: seed of all random choices.
        states: the folder for resume states, which stay until `remove_states`.
        threads: number of CPU threads, see `RunSettings.threads`.

    Returns:
        A function that writes the backbone in transformers' format and half precision, with its model card.

    Raises:
        HyperFormerError: if the loss or a weight is no longer finite, another run uses `states`, or a resume state
            cannot be read.
    """
    used = use_threads(threads)
    with lock_states(states):
        fingerprint = compute_fingerprint({"pretraining": settings}, inputs, seed, used)
        return _pretrain(corpus, settings, seed, prepare_state(states, fingerprint))


def _pretrain(corpus: Rows, settings: PretrainingSettings, seed: int, state: Path) -> Writer:
    start = time.monotonic()
    texts = (text for row in track(corpus, "training the tokenizer", len(corpus)) for text in row.values() if text)
    tokenizer = backbones.train_tokenizer(texts, settings.vocab_size)
    rows = _encode(tokenizer, corpus, settings.max_tokens)
    set_seed(seed)
    backbone = backbones.create_backbone(tokenizer, settings.sizes.model_dump())
    if settings.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()

    def collate(batch: Sequence[TrainingRow]) -> dict[str, Tensor]:
        return backbone.collate([row.tokens for row in batch])

    size = sum(p.numel() for p in backbone.parameters())
    log.info("pretraining %.2f M parameters, vocabulary %d, on %d rows", size / 1e6, len(tokenizer), len(rows))
    model, batches = _LanguageModel(backbone, settings.label_smoothing), _batches(rows, tokenizer, settings, seed)
    group = ParameterGroup("backbone", 1.0, list(backbone.parameters()))
    job = TrainingJob(model, batches, collate, ["text"], [group])
    run_loop(job, settings, seed, state)

    def write(folder: Path) -> None:
        backbone.save(folder)
        (folder / "README.md").write_text(_model_card(settings, seed, size, len(tokenizer)), encoding="utf-8")

    log.info("pretrained in %.0f minutes", (time.monotonic() - start) / 60)
    return write


def _encode(tokenizer: PreTrainedTokenizerFast, corpus: Rows, max_tokens: int) -> Rows:
    """Encode both texts of every row into token ids, truncated to `max_tokens`."""

    def encoded_rows() -> Iterator[dict[str, list[int]]]:
        for chunk in corpus.iter(1000):
            sources, targets = (
                tokenizer(chunk[key], truncation=True, max_length=max_tokens)["input_ids"]
                for key in ("source", "target")
            )
            for source, target in zip(sources, targets, strict=True):
                yield {"source": source, "target": target}

    ids = pa.list_(pa.int32())
    return collect_rows(track(encoded_rows(), "encoding", len(corpus)), pa.schema([("source", ids), ("target", ids)]))


def _batches(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, settings: PretrainingSettings, seed: int
) -> Callable[[int], list[TrainingRow]]:
    """Return a function that returns the rows of a step's batch; rows without a target are span-corrupted."""
    sentinels = [int(tokenizer.vocab[f"<extra_id_{i}>"]) for i in range(backbones.SENTINELS)]
    eos = tokenizer.eos_token_id
    order = group_by_length([len(source) for source in rows["source"]], settings.batch_size, seed)

    def batch(step: int) -> list[TrainingRow]:
        batch_rows = []
        positions = range(step * settings.batch_size, (step + 1) * settings.batch_size)
        numbers = [int(order[position % len(rows)]) for position in positions]
        chosen = rows[numbers]
        for position, number, source, target in zip(
            positions, numbers, chosen["source"], chosen["target"], strict=True
        ):
            if len(target) > 1:
                tokens = {"input_ids": source, "labels": target}
            else:  # the target is only </s>
                corrupted, spans = corrupt(source[:-1], sentinels, settings, make_rng(seed, position))
                tokens = {"input_ids": [*corrupted, eos], "labels": [*spans, eos]}
            batch_rows.append(TrainingRow(tokens, 0, number))
        return batch_rows

    return batch


def _model_card(settings: PretrainingSettings, seed: int, size: int, vocabulary: int) -> str:
    if settings.text_file:
        source = (
            f"{Path(settings.text_file).name} and the tasks' training texts by span corruption and self-supervised "
            "objectives (see `hyperformer.data.plaintext`)"
        )
    else:
        source = (
            "the embedded language by span corruption and a curriculum of supervised auxiliary objectives "
            "(see `hyperformer.embedded.corpus`)"
        )
    listed = "\n".join(f"- {name}: {value}" for name, value in settings.model_dump().items())
    return f"""# T5 backbone pretrained by `kedro run --pipelines pretrain`

A small T5: {size / 1e6:.2f} M parameters, a vocabulary of {vocabulary} tokens, weights in half precision.

Pretrained on {source}, with seed {seed}.

## Settings

{listed}
"""


def corrupt(
    ids: Sequence[int], sentinels: Sequence[int], settings: PretrainingSettings, rng: np.random.Generator
) -> Any:
    """Replace random spans of a text with sentinels (Raffel et al. 2020, section 3.1.4).

    The target is each sentinel, followed by the span that it replaces.

    Args:
        ids: the tokens of a text, without </s>.
        sentinels: token ids of the sentinels, in order.
        settings: the noise density and the mean span length.
        rng: draws the spans.

    Returns:
        (source, target) token ids without </s>.
    """
    noisy = min(max(round(len(ids) * settings.noise_density), 1), len(ids) - 1)
    spans = min(max(round(noisy / settings.mean_noise_span_length), 1), len(sentinels), noisy, len(ids) - noisy)
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


def _composition(total: int, terms: int, rng: np.random.Generator) -> list[int]:
    """Return `terms` random positive integers that sum to `total`."""
    ends = np.sort(rng.choice(total - 1, terms - 1, replace=False)) + 1 if terms > 1 else np.empty(0, dtype=np.int64)
    return [int(n) for n in np.diff(np.concatenate([[0], ends, [total]]))]
