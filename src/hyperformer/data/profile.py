"""Profile of the tasks' rows before training: counts, token lengths, and warnings about likely data problems."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from hyperformer import backbones, tasks
from hyperformer.backbones import Backbone
from hyperformer.core import text
from hyperformer.core.language import TokenCounts
from hyperformer.core.progress import track
from hyperformer.core.types import SPLITS, Example, Split
from hyperformer.data.storage import stream_rows
from hyperformer.settings import BackboneSettings, Tasks
from hyperformer.tasks import Task

log = logging.getLogger(__name__)

CHUNK = 1000
"""Number of rows that are encoded at once."""
NO_LIMIT = 1 << 20
"""Value of `max_source_tokens` that is large enough to truncate no source."""
MAX_EXAMPLES = 3
"""Maximum number of examples shown of each task."""
MAX_CHARACTERS = 300
"""Maximum number of characters shown of each example."""
FEW_ROWS = 10
"""Warn about an answer of a classification task that has fewer training rows than this."""
MAJORITY = 0.8
"""Warn if an answer of a classification task has more than this fraction of the rows: accuracy then means little."""
NEGLIGIBLE = 0.01
"""Do not warn about truncated, repeated or empty texts up to this fraction of the rows."""


def profile_rows(
    rows: Path, settings: Tasks, backbone: BackboneSettings, counts: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> dict[str, dict[str, Any]]:
    """Profile the checked rows of every task.

    Args:
        rows: Folder of checked rows.
        settings: Settings of the tasks.
        backbone: Settings of the backbone that tokenizes the rows.
        counts: Task → split → `rows`, the number of rows, and `removed`, the number of rows removed from the split
                because a later split also has them.

    Returns:
        For each task, a dictionary with `splits`, the profile of each split; `examples`, the first training rows as the
        model reads them; and `findings`, a list of warnings.

        The profile of a split has these entries. `rows` and `removed`: as in `counts`. `answers`, in a classification
        task: the number of rows with each answer. `numbers`, in a regression task: minimum, median and maximum.
        `tokens`: median, 95th percentile and maximum of the number of tokens of a source, special tokens included.
        `cut`: the number of truncated rows. `unknown`: the fraction of tokens that are unknown. `repeated`: the number
        of rows that repeat the source of an earlier row of the split. `at_odds`: the number of these rows whose answer
        differs from the earlier row's answer. `empty`: the number of rows with an empty text, by column.

    Raises:
        HyperFormerError: The label of a row is invalid.
    """
    loaded = backbones.load(backbone)
    profiles = {}
    for name, task in track(tasks.make_tasks(settings).items(), "profiling rows", len(settings.root)):
        splits = {split: _SplitProfile(task, loaded, backbone).read(rows, split) for split in SPLITS}
        summaries: dict[str, Any] = {
            split: {"rows": counted.rows, "removed": counts[name][split]["removed"], **counted.summarize()}
            for split, counted in splits.items()
        }
        profiles[name] = {
            "splits": summaries,
            "examples": _examples(task, loaded, backbone, rows),
            "findings": list(_find_problems(task, loaded, backbone, splits)),
        }
        _log_profile(name, profiles[name])
    return profiles


class _SplitProfile:
    """Counts over the rows of one split of a task."""

    def __init__(self, task: Task, loaded: Backbone, backbone: BackboneSettings) -> None:
        self._task, self._loaded, self._longest = task, loaded, backbone.max_source_tokens
        self._untruncated = backbone.model_copy(update={"max_source_tokens": NO_LIMIT})
        self.rows = self.repeated = self.at_odds = 0
        self.tokens = TokenCounts(len(loaded.tokenizer))
        self.lengths: list[int] = []
        self.answers: Counter[str] = Counter()
        self.numbers: list[float] = []
        self.empty: Counter[str] = Counter()
        self._seen: dict[bytes, str] = {}

    def read(self, rows: Path, split: Split) -> _SplitProfile:
        """Count the rows of a split, and return this profile."""
        stream = stream_rows(rows, self._task.name, split)
        while chunk := list(islice(stream, CHUNK)):
            examples = [self._task.make_example(row) for row in chunk]
            for row, example in zip(chunk, examples, strict=True):
                self._count(row, example)
            tokenizer = self._loaded.tokenizer
            for encoded in self._loaded.encode_examples(examples, self._untruncated):
                self.lengths.append(len(encoded["input_ids"]))
                self.tokens.add(tokenizer.convert_ids_to_tokens(encoded["input_ids"]), tokenizer.unk_token)
        return self

    def _count(self, row: Mapping[str, Any], example: Example) -> None:
        self.rows += 1
        self.answers[example.answer] += 1
        if self._task.numbers is not None:
            self.numbers.append(float(self._task.read_label(row)))
        self.empty.update(column for column in self._task.text_columns if not str(row[column]).strip())
        key = blake2b(repr(example.source).encode(), digest_size=16).digest()
        if key in self._seen:
            self.repeated += 1
            self.at_odds += self._seen[key] != example.answer
        else:
            self._seen[key] = example.answer

    @property
    def truncated(self) -> int:
        """Number of rows whose source has more than `max_source_tokens` tokens."""
        return sum(length > self._longest for length in self.lengths)

    def summarize(self) -> dict[str, Any]:
        """Return the counts as a dictionary for JSON."""
        lengths = sorted(self.lengths)
        summary: dict[str, Any] = {}
        if self._task.numbers is not None:
            summary["numbers"] = [min(self.numbers), statistics.median(self.numbers), max(self.numbers)]
        elif self._task.answers:
            summary["answers"] = {answer: self.answers[answer] for answer in self._task.answers}
        return summary | {
            "tokens": [statistics.median_low(lengths), lengths[int(0.95 * (len(lengths) - 1))], lengths[-1]],
            "cut": self.truncated,
            "unknown": round(self.tokens.unknown / self.tokens.tokens, 4),
            "repeated": self.repeated,
            "at_odds": self.at_odds,
            "empty": {column: self.empty[column] for column in self._task.text_columns},
        }


def _examples(task: Task, loaded: Backbone, backbone: BackboneSettings, rows: Path) -> list[dict[str, Any]]:
    """Return the first training rows: text, tokens as the model reads them, and answer."""
    examples = [task.make_example(row) for row in islice(stream_rows(rows, task.name, "train"), MAX_EXAMPLES)]
    encoded = loaded.encode_examples(examples, backbone)
    return [
        {
            "text": text.join_source(example.source)[:MAX_CHARACTERS],
            "tokens": loaded.tokenizer.convert_ids_to_tokens(tokens["input_ids"]),
            "answer": example.answer,
        }
        for example, tokens in zip(examples, encoded, strict=True)
    ]


def _find_problems(
    task: Task, loaded: Backbone, backbone: BackboneSettings, splits: Mapping[Split, _SplitProfile]
) -> Iterator[str]:
    """Yield warnings about likely problems of the rows, each with advice."""
    yield from _find_answer_problems(task, loaded, splits)
    for split, counted in splits.items():
        problems = {
            f"have more than {backbone.max_source_tokens} tokens and are truncated (the longest has "
            f"{max(counted.lengths)}); increase backbone.max_source_tokens, or move the decisive text to the "
            "front": counted.truncated,
            "repeat the text of an earlier row of the split; remove them": counted.repeated,
            "repeat the text of an earlier row with a different answer; fix the labels": counted.at_odds,
            **{
                f"have no text in {column!r}; fill the column, or remove it from the task's text": count
                for column, count in counted.empty.items()
            },
        }
        for problem, count in problems.items():
            if count > NEGLIGIBLE * counted.rows:
                yield f"{split}: {count} of {counted.rows} rows {problem}"
        if (language := counted.tokens.describe_problem()) is not None:
            yield f"{split}: {language}"


def _find_answer_problems(task: Task, loaded: Backbone, splits: Mapping[Split, _SplitProfile]) -> Iterator[str]:
    """Yield warnings about rare, missing, dominant or indistinguishable answers."""
    if not task.answers:
        return
    train = splits["train"]
    ids = loaded.encode_answers(task.answers, task.numbers).ids
    for index, answer in enumerate(task.answers):
        if ids[index] in ids[:index]:
            other = task.answers[ids.index(ids[index])]
            yield f"the answers {other!r} and {answer!r} have the same tokens; change one of them"
    if task.numbers is not None:
        return
    for answer in task.answers:
        if train.answers[answer] < FEW_ROWS:
            count = train.answers[answer]
            yield f"train: {count} of {train.rows} rows have the answer {answer!r}; add rows, or use `merge_labels`"
        yield from (
            f"{split}: no row has the answer {answer!r}; change the splits"
            for split, counted in splits.items()
            if split != "train" and not counted.answers[answer]
        )
    [(answer, count)] = train.answers.most_common(1)
    if count > MAJORITY * train.rows:
        fraction = count / train.rows
        yield f"train: {fraction:.0%} of the rows have the answer {answer!r}; use f1 or matthews besides accuracy"


def _log_profile(name: str, profile: Mapping[str, Any]) -> None:
    for split, summary in profile["splits"].items():
        removed = f" ({summary['removed']} removed as duplicates of a later split)" if summary["removed"] else ""
        facts = [f"{answer} {count / summary['rows']:.0%}" for answer, count in summary.get("answers", {}).items()]
        if "numbers" in summary:
            facts = ["numbers {0:g} to {2:g}, median {1:g}".format(*summary["numbers"])]
        median, percentile, longest = summary["tokens"]
        facts.append(f"tokens: median {median}, 95th percentile {percentile}, maximum {longest}")
        log.info("%s, %s: %d rows%s; %s", name, split, summary["rows"], removed, ", ".join(facts))
    for problem in profile["findings"]:
        log.warning("%s, %s", name, problem)
