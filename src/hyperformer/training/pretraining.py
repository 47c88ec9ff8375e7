"""A small T5 and its tokenizer from text, by span corruption and the objectives of its rows."""

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
from hyperformer.config import PretrainingSettings
from hyperformer.data import Rows, Writer, gathered, generator
from hyperformer.progress import watched
from hyperformer.training.engine import Row, Work, run_loop
from hyperformer.training.sampling import length_grouped
from hyperformer.training.states import alone, fresh_state, work_of

log = logging.getLogger(__name__)


class _Language(nn.Module):
    """A backbone with its own loss on top, as the loop wants it."""

    def __init__(self, backbone: backbones.Backbone, label_smoothing: float) -> None:
        super().__init__()
        self.backbone, self.label_smoothing = backbone, label_smoothing

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {"row_losses": self.backbone.loss(batch, self.label_smoothing)}


def pretrain(
    corpus: Rows, settings: PretrainingSettings, inputs: Mapping[str, Path], seed: int, states: Path
) -> Writer:
    """Makes a small T5 and its tokenizer from text; an interrupted run of the same work goes on.

    Args:
        corpus: rows of `source` and `target` texts, taken in order but for grouping by length; where `target` is empty,
            `source` is span-corrupted, anew at each pass.
        inputs: files and folders that the corpus was made from, by name; a state of other ones is not used.
        states: a folder for resume states of pretraining, outside of what is published; they stay until
            `remove_states`.
    Returns:
        What writes the backbone, in transformers' layout and half precision, with its card.
    """
    with alone(states):
        return _pretrained(
            corpus, settings, seed, fresh_state(states, work_of({"pretraining": settings}, inputs, seed))
        )


def _pretrained(corpus: Rows, settings: PretrainingSettings, seed: int, state: Path) -> Writer:
    began = time.monotonic()
    texts = (text for row in watched(corpus, "reading words", len(corpus)) for text in row.values() if text)
    tokenizer = backbones.train_tokenizer(texts, settings.vocab_size)
    rows = _tokens(tokenizer, corpus, settings.max_tokens)
    set_seed(seed)
    backbone = backbones.new(tokenizer, settings.sizes.model_dump())
    if settings.gradient_checkpointing:
        backbone.checkpoint_gradients()

    def collate(batch: Sequence[Row]) -> dict[str, Tensor]:
        return backbone.collate([row.tokens for row in batch], [0] * len(batch)).tensors

    size = sum(p.numel() for p in backbone.parameters())
    log.info("pretraining %.2f M parameters, vocabulary %d, on %d rows", size / 1e6, len(tokenizer), len(rows))
    work = Work(
        _Language(backbone, settings.label_smoothing), _batches(rows, tokenizer, settings, seed), collate, ["text"]
    )
    run_loop(work, settings, seed, state)

    def write(folder: Path) -> None:
        backbone.save(folder)
        (folder / "README.md").write_text(_card(settings, seed, size, len(tokenizer)), encoding="utf-8")

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


def _batches(
    rows: Rows, tokenizer: PreTrainedTokenizerFast, settings: PretrainingSettings, seed: int
) -> Callable[[int], list[Row]]:
    """The rows of a step's batch, some of them corrupted."""
    sentinels = [int(tokenizer.vocab[f"<extra_id_{i}>"]) for i in range(backbones.SENTINELS)]
    eos = tokenizer.eos_token_id
    order = length_grouped([len(source) for source in rows["source"]], settings.batch_size, seed)

    def batch(step: int) -> list[Row]:
        encoded = []
        positions = range(step * settings.batch_size, (step + 1) * settings.batch_size)
        numbers = [int(order[position % len(rows)]) for position in positions]
        chosen = rows[numbers]
        for position, number, source, target in zip(
            positions, numbers, chosen["source"], chosen["target"], strict=True
        ):
            if len(target) > 1:
                tokens = {"input_ids": source, "labels": target}
            else:  # nothing but </s>
                cut, spans = corrupt(source[:-1], sentinels, settings, generator(seed, position))
                tokens = {"input_ids": [*cut, eos], "labels": [*spans, eos]}
            encoded.append(Row(tokens, 0, number))
        return encoded

    return batch


def _card(settings: PretrainingSettings, seed: int, size: int, vocabulary: int) -> str:
    if settings.text_file:
        source = (
            f"{Path(settings.text_file).name} and the tasks' training texts: span corruption, and the objectives that "
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


def _composition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """`total` as a random ordered sum of `parts` positive numbers."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.empty(0, dtype=np.int64)
    return [int(n) for n in np.diff(np.concatenate([[0], cuts, [total]]))]
