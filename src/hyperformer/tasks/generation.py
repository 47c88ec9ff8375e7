"""Generative tasks: any text can be the answer; metrics compare it with the text in the label column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer
from hyperformer.core.values import to_text
from hyperformer.settings import TaskSettings
from hyperformer.tasks.base import Metric, Task, register_task


class _UnicodeTokenizer:
    """Word tokenizer for any script; the tokenizer of rouge_score only supports ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def _exact_match(truths: Sequence[str], predictions: Sequence[str], answers: int) -> float:
    """Return the fraction of equal texts, ignoring case and the amount of whitespace."""
    same = (
        " ".join(a.lower().split()) == " ".join(b.lower().split()) for a, b in zip(truths, predictions, strict=True)
    )
    return sum(same) / len(truths)


def _rouge_l(truths: Sequence[str], predictions: Sequence[str], answers: int) -> float:
    """Return the mean F-measure of ROUGE-L over rows (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_UnicodeTokenizer())
    scores = [scorer.score(*pair)["rougeL"].fmeasure for pair in zip(truths, predictions, strict=True)]
    return float(sum(scores) / len(scores))


def _bleu(truths: Sequence[str], predictions: Sequence[str], answers: int) -> float:
    """Return corpus BLEU (Papineni et al. 2002) with the defaults of sacrebleu, ignoring case; from 0 to 1."""
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(predictions, [truths], lowercase=True, force=True).score) / 100.0


class GenerationSettings(TaskSettings):
    """Settings of a generative task, which has none of its own."""


class Generation(Task):
    """Generative task; the label column has the text to generate."""

    METRICS: ClassVar[dict[str, Metric]] = {"exact_match": _exact_match, "rouge_l": _rouge_l, "bleu": _bleu}

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the text of the row's label column."""
        column = self.settings.label_column
        text = to_text(row.get(column), column)
        if not text.strip():
            raise HyperFormerError(f"the text in column {column!r} is {text!r}, expected a non-empty text")
        return text

    def read_label(self, row: Mapping[str, Any]) -> str:
        """Return the text of the row's label column."""
        return self.answer_text(row)

    def to_prediction(self, answer: Answer) -> str:
        """Return the text of the answer."""
        return answer.label


register_task("generation", GenerationSettings, Generation)
