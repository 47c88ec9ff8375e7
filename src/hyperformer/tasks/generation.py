"""Generation: any text may be the answer, and is judged by how near it comes to the one in the row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hyperformer.tasks.base import Metric, Task
from hyperformer.types import Answer, HyperFormerError


class _Words:
    """The words of any script, for rouge_score, whose own tokenizer knows ASCII only."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def _exact_match(truths: Sequence[str], predictions: Sequence[str], answers: int) -> float:
    """The share of equal texts, case and blanks aside."""
    same = (
        " ".join(a.lower().split()) == " ".join(b.lower().split()) for a, b in zip(truths, predictions, strict=True)
    )
    return sum(same) / len(truths)


def _rouge_l(truths: Sequence[str], predictions: Sequence[str], answers: int) -> float:
    """The mean over rows of ROUGE-L's F-measure (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    scores = [scorer.score(*pair)["rougeL"].fmeasure for pair in zip(truths, predictions, strict=True)]
    return float(sum(scores) / len(scores))


def _bleu(truths: Sequence[str], predictions: Sequence[str], answers: int) -> float:
    """BLEU over all rows (Papineni et al. 2002), as sacrebleu computes it by default, case aside."""
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(predictions, [truths], lowercase=True, force=True).score) / 100.0


class Generation(Task):
    """The label column holds the answer's text."""

    METRICS: ClassVar[dict[str, Metric]] = {"exact_match": _exact_match, "rouge_l": _rouge_l, "bleu": _bleu}

    def answer_text(self, row: Mapping[str, Any]) -> str:
        value, column = row.get(self.settings.label_column), self.settings.label_column
        if value is None or not str(value).strip():
            raise HyperFormerError(f"the text in column {column!r} is {value!r}, expected the answer to learn")
        return str(value)

    def truth(self, row: Mapping[str, Any]) -> str:
        return self.answer_text(row)

    def prediction(self, answer: Answer) -> str:
        return answer.label
