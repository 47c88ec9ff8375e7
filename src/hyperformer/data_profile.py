"""What the rows of tasks hold, as a model will read them, and what in them deserves a look before any training."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from hyperformer import backbones, tasks, text
from hyperformer.backbones import Backbone
from hyperformer.config import BackboneSettings, Tasks
from hyperformer.data import SPLITS, stream_rows
from hyperformer.progress import watched
from hyperformer.tasks import Task
from hyperformer.types import Example, Split

log = logging.getLogger(__name__)

CHUNK = 1000  # rows that are encoded at once
UNCUT = 1 << 20  # tokens, which no text has
SHOWN, LETTERS = 3, 300  # examples of a task, and letters of each
FEW = 10  # training rows of an answer
OFTEN = 0.8  # share of rows with one answer, from which accuracy says little
SHARE = 0.01  # of rows, or of tokens, that goes unmentioned


def profile(
    rows: Path, settings: Tasks, backbone: BackboneSettings, counts: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> dict[str, dict[str, Any]]:
    """Looks through the checked rows of every task.

    Args:
        rows: the folder of checked rows.
        counts: task → split → `rows`, and `removed`: how many also stood in a later split.
    Returns:
        For each task `splits`, `examples` as the model reads them, and `findings`: sentences on what deserves a look. A
        split has `rows` and `removed`; `answers`, how many rows have each (of a closed task); `numbers`, their least,
        median and greatest (regression); `tokens` of the source, with the marks: median, 95th percentile and greatest;
        `cut`, rows with more than the backbone takes; `unknown`, the share of tokens that stand for unknown characters;
        `repeated`, rows whose source stood before in the split, and `at_odds`, those of them with another answer;
        `empty`, rows without a text in a column.
    Raises:
        HyperFormerError: a row has a label that is none of its task's.
    """
    loaded = backbones.load(backbone)
    found = {}
    for name, task in watched(tasks.make(settings).items(), "looking through rows", len(settings.root)):
        splits = {split: _Split(task, loaded, backbone).read(rows, split) for split in SPLITS}
        seen: dict[str, Any] = {
            split: {"rows": one.rows, "removed": counts[name][split]["removed"], **one.described()}
            for split, one in splits.items()
        }
        found[name] = {
            "splits": seen,
            "examples": _examples(task, loaded, backbone, rows),
            "findings": list(_findings(task, loaded, backbone, splits)),
        }
        _tell(name, found[name])
    return found


class _Split:
    """The rows of one split of a task, counted as they come."""

    def __init__(self, task: Task, loaded: Backbone, backbone: BackboneSettings) -> None:
        self._task, self._loaded, self._longest = task, loaded, backbone.max_source_tokens
        self._whole = backbone.model_copy(update={"max_source_tokens": UNCUT})
        self.rows = self.repeated = self.at_odds = self.unknown = 0
        self.lengths: list[int] = []
        self.answers: Counter[str] = Counter()
        self.numbers: list[float] = []
        self.empty: Counter[str] = Counter()
        self._seen: dict[bytes, str] = {}

    def read(self, rows: Path, split: Split) -> _Split:
        """Counts the rows of a split."""
        given = stream_rows(rows, self._task.name, split)
        while chunk := list(islice(given, CHUNK)):
            examples = [self._task.example(row) for row in chunk]
            for row, example in zip(chunk, examples, strict=True):
                self._count(row, example)
            mark = self._loaded.tokenizer.unk_token_id
            for one in self._loaded.encode(examples, self._whole):
                self.lengths.append(len(one["input_ids"]))
                self.unknown += one["input_ids"].count(mark)
        return self

    def _count(self, row: Mapping[str, Any], example: Example) -> None:
        self.rows += 1
        self.answers[example.answer] += 1
        if self._task.numbers is not None:
            self.numbers.append(float(self._task.truth(row)))
        self.empty.update(column for column in self._task.text_columns if not str(row[column]).strip())
        key = blake2b(repr(example.source).encode(), digest_size=16).digest()
        if key in self._seen:
            self.repeated += 1
            self.at_odds += self._seen[key] != example.answer
        else:
            self._seen[key] = example.answer

    @property
    def cut(self) -> int:
        """Rows with more tokens than the backbone takes."""
        return sum(length > self._longest for length in self.lengths)

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        lengths = sorted(self.lengths)
        found: dict[str, Any] = {}
        if self._task.numbers is not None:
            found["numbers"] = [min(self.numbers), statistics.median(self.numbers), max(self.numbers)]
        elif self._task.answers:
            found["answers"] = {answer: self.answers[answer] for answer in self._task.answers}
        return found | {
            "tokens": [statistics.median_low(lengths), lengths[int(0.95 * (len(lengths) - 1))], lengths[-1]],
            "cut": self.cut,
            "unknown": round(self.unknown / sum(lengths), 4),
            "repeated": self.repeated,
            "at_odds": self.at_odds,
            "empty": {column: self.empty[column] for column in self._task.text_columns},
        }


def _examples(task: Task, loaded: Backbone, backbone: BackboneSettings, rows: Path) -> list[dict[str, Any]]:
    """The first training rows: the text, its tokens as they come to the model, and the answer."""
    examples = [task.example(row) for row in islice(stream_rows(rows, task.name, "train"), SHOWN)]
    encoded = loaded.encode(examples, backbone)
    return [
        {
            "text": text.joined(example.source)[:LETTERS],
            "tokens": loaded.tokenizer.convert_ids_to_tokens(one["input_ids"]),
            "answer": example.answer,
        }
        for example, one in zip(examples, encoded, strict=True)
    ]


def _findings(
    task: Task, loaded: Backbone, backbone: BackboneSettings, splits: Mapping[Split, _Split]
) -> Iterator[str]:
    """What deserves a look, each with what to do."""
    yield from _of_answers(task, loaded, splits)
    for split, found in splits.items():
        many = {
            f"have more than {backbone.max_source_tokens} tokens and are cut (the longest has {max(found.lengths)}); "
            "raise backbone.max_source_tokens, or put what decides first": found.cut,
            "stood before in the split; leave them out": found.repeated,
            "stood before with another answer; mend the labels": found.at_odds,
            **{
                f"have no text in {column!r}; fill it, or leave it out of the task's text": count
                for column, count in found.empty.items()
            },
        }
        for what, count in many.items():
            if count > SHARE * found.rows:
                yield f"{split}: {count} of {found.rows} rows {what}"
        if found.unknown > SHARE * sum(found.lengths):
            share = found.unknown / sum(found.lengths)
            yield f"{split}: {share:.1%} of the tokens are unknown characters; take a backbone that knows the language"


def _of_answers(task: Task, loaded: Backbone, splits: Mapping[Split, _Split]) -> Iterator[str]:
    """What deserves a look in how often answers come, and in how they are written."""
    if not task.answers:
        return
    train = splits["train"]
    written = loaded.answers(task.answers, task.numbers).ids
    for place, answer in enumerate(task.answers):
        if written[place] in written[:place]:
            other = task.answers[written.index(written[place])]
            yield f"the answers {other!r} and {answer!r} are the same tokens; write one of them otherwise"
    if task.numbers is not None:
        return
    for answer in task.answers:
        if train.answers[answer] < FEW:
            count = train.answers[answer]
            yield f"train: {count} of {train.rows} rows have the answer {answer!r}; give more, or leave the label out"
        yield from (
            f"{split}: no row has the answer {answer!r}; split the rows otherwise"
            for split, found in splits.items()
            if split != "train" and not found.answers[answer]
        )
    [(answer, count)] = train.answers.most_common(1)
    if count > OFTEN * train.rows:
        share = count / train.rows
        yield f"train: {share:.0%} of the rows have the answer {answer!r}; judge by f1 or matthews beside accuracy"


def _tell(name: str, found: Mapping[str, Any]) -> None:
    for split, one in found["splits"].items():
        removed = f" ({one['removed']} removed: they stand in a later split)" if one["removed"] else ""
        said = [f"{answer} {count / one['rows']:.0%}" for answer, count in one.get("answers", {}).items()]
        if "numbers" in one:
            said = ["numbers {0:g} to {2:g}, median {1:g}".format(*one["numbers"])]
        median, most, longest = one["tokens"]
        said.append(f"{median} tokens, 95% up to {most}, the longest {longest}")
        log.info("%s, %s: %d rows%s; %s", name, split, one["rows"], removed, ", ".join(said))
    for sentence in found["findings"]:
        log.warning("%s, %s", name, sentence)
