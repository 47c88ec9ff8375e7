"""The summary of a run: everything that its tables, sentences and charts show, computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hyperformer.core import manifest
from hyperformer.core.manifest import Manifest
from hyperformer.evaluation import standard_error
from hyperformer.report import statistics
from hyperformer.report.diagnostics import Diagnostics, summarize_diagnostics
from hyperformer.report.run import Run
from hyperformer.report.statistics import Calibration, ConfusionMatrix, Similarity, ValueGroup
from hyperformer.tasks import Task

BASELINES = {"majority": "majority", "tfidf": "TF-IDF", "overlap": "TF-IDF + overlap", "frozen": "frozen embeddings"}
"""Baselines by their keys in metrics, with the names that a reader sees."""
MAX_EXAMPLES = 3
"""Maximum number of wrong predictions that are shown for a task."""
FILE_KINDS = {"float32 graph": manifest.GRAPH, "int8 graph": manifest.INT8, "generation": manifest.GENERATION}
"""Kinds of files in a bundle, with the prefix of their names."""
OTHER_FILES = "tokenizer and model card"
"""Kind of the other files in a bundle."""


@dataclass(frozen=True)
class Score:
    """A test score of the model next to those of the baselines, in percent."""

    model: float
    error: float
    """Standard error of `model`, in percentage points."""
    baselines: Mapping[str, float]
    """Scores by the keys of `BASELINES`, without those that are left out; the mean of one needs all tasks."""

    @property
    def best_baseline(self) -> str:
        """Key of the baseline with the highest score."""
        return max(self.baselines, key=self.baselines.__getitem__)

    @property
    def is_behind(self) -> bool:
        """True if the model does not beat the best baseline; an equal score does not beat it."""
        return self.model <= self.baselines[self.best_baseline]


@dataclass(frozen=True)
class TaskScore(Score):
    """The test score of a task."""

    name: str
    metrics: tuple[str, ...]
    rows: int
    collapsed: bool
    """True if all rows have the same prediction."""
    outside: int
    """Number of predictions that are not answers of the task."""
    notes: Mapping[str, str]
    """Notes, by the name of the baseline or split, or `model`."""


@dataclass(frozen=True)
class Curve:
    """Validation scores of a task, or their mean over tasks, in percent."""

    name: str
    values: tuple[float, ...]
    best: int
    """Index of the highest value, the first of equal ones."""


@dataclass(frozen=True)
class Learning:
    """Validation scores during training."""

    steps: tuple[float, ...]
    curves: tuple[Curve, ...]
    """The mean over tasks, then the validated tasks."""
    minimum: float
    """Lower end of the axis that all curves share, in percent."""
    diagnostics: Diagnostics | None

    @property
    def rising(self) -> tuple[str, ...]:
        """Names of the tasks whose best validation is the last of several."""
        last = len(self.steps) - 1
        return tuple(curve.name for curve in self.curves[1:] if curve.best == last > 0)


@dataclass(frozen=True)
class Example:
    """A wrong prediction."""

    text: str
    truth: str
    answer: str
    value: float | None
    """Predicted value of a regression task."""
    probability: float | None
    """Probability of the answer, from 0 to 1; None in a regression task."""


@dataclass(frozen=True)
class Predictions:
    """Test predictions of a task."""

    name: str
    error_rate: float
    """Share of predictions that differ from the expected answer, from 0 to 1."""
    worst: tuple[Example, ...]
    matrix: ConfusionMatrix | None
    """None if the task is not a classification task."""
    calibration: Calibration | None
    """None if the task is not a classification task, or its answers have no probabilities."""
    numbers: tuple[float, ...] | None
    """Values of the answers of a regression task; None for other tasks."""
    groups: tuple[ValueGroup, ...]
    """Predicted values of a regression task by true value; empty if no prediction is a number."""


@dataclass(frozen=True)
class Bundle:
    """The exported bundle of a task."""

    name: str
    sizes: Mapping[str, float]
    """Size of the files by kind, in megabytes."""
    parity: Mapping[str, float]
    """Comparison of the graph with the model, as the manifest has it."""
    int8: Mapping[str, float]
    """Comparison of the int8 graph with the float32 graph, as the manifest has it; empty if there is none."""
    openvino: Mapping[str, float]
    """Comparison of OpenVINO with onnxruntime, as the manifest has it; empty if they were not compared."""
    graph_sha256: str | None
    origins: Mapping[str, str]
    """SHA-256 of the inputs that differ between tasks."""

    @property
    def total_size(self) -> float:
        """Size of all files, in megabytes."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Lineage:
    """The inputs that a run was created from."""

    backbone: str
    revision: str | None
    backbone_sha256: str
    shared: Mapping[str, str]
    """SHA-256 of the inputs that are the same for all bundles."""
    per_task: tuple[str, ...]
    """Names of the inputs that differ between bundles."""
    settings: str
    """Settings of the method, as JSON."""


@dataclass(frozen=True)
class Summary:
    """Everything that the report of a run shows."""

    method: str
    seed: int
    tolerance: float
    """The setting `export.tolerance`."""
    parameters: Mapping[str, float]
    scores: tuple[TaskScore, ...]
    mean: Score
    """Mean over tasks; its standard error assumes independent tasks."""
    learning: Learning | None
    """None if training recorded no validation scores."""
    training: Mapping[str, Any] | None
    """The `steps`, `threads` and `passes` by task that the checkpoint records; None if it records none."""
    predictions: tuple[Predictions, ...]
    embedded_tasks: int
    """Number of tasks that have an embedding."""
    similarity: Similarity | None
    """None if fewer than two tasks have an embedding."""
    bundles: tuple[Bundle, ...]
    lineage: Lineage

    @property
    def behind(self) -> tuple[TaskScore, ...]:
        """Scores of the tasks that do not beat their best baseline."""
        return tuple(score for score in self.scores if score.is_behind)

    @property
    def most_mistakes(self) -> Predictions | None:
        """Predictions with the highest error rate; None if all tasks are regression tasks."""
        ranked = (predictions for predictions in self.predictions if predictions.numbers is None)
        return max(ranked, key=lambda predictions: predictions.error_rate, default=None)

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """Calibration of each task whose answers have probabilities."""
        return {task.name: task.calibration for task in self.predictions if task.calibration}


def summarize(run: Run) -> Summary:
    """Summarize a run; reads each of its files once."""
    configuration, manifests = run.read_configuration(), run.read_manifests()
    scores = tuple(_summarize_score(run, name, task) for name, task in run.tasks.items())
    embeddings = run.read_task_embeddings()
    names = tuple(configuration["groups"][0]) if embeddings is not None else ()
    similarity = None
    if embeddings is not None and len(names) > 1:
        similarity = statistics.compare_embeddings(names, embeddings)
    lineage = _summarize_lineage(configuration, manifests)
    return Summary(
        method=str(configuration["method"]),
        seed=run.seed,
        tolerance=run.tolerance,
        parameters=run.parameters,
        scores=scores,
        mean=_average_scores(scores),
        learning=_summarize_learning(run) if run.history else None,
        training=configuration.get("training"),
        predictions=tuple(_summarize_predictions(run, task) for task in run.tasks.values()),
        embedded_tasks=len(names),
        similarity=similarity,
        bundles=tuple(_summarize_bundle(run, name, item, lineage) for name, item in manifests.items()),
        lineage=lineage,
    )


def _summarize_score(run: Run, name: str, task: Task) -> TaskScore:
    result, rows = run.metrics["test"][name], run.counts[name]["test"]["rows"]
    notes: dict[str, str] = dict(run.baselines.get("notes", {}).get(name, {}))
    if "auc" in result:
        notes["model"] = f"the area under the ROC curve is {result['auc']:.1f} (chance: 50)"
    scores = run.baselines["test"][name]
    baselines = {kind: scores[kind]["mean"] for kind in BASELINES if kind in scores}
    if "tfidf" in baselines and "overlap" not in notes:
        # A task with one text has no overlap between texts, so TF-IDF replaces this baseline.
        baselines.setdefault("overlap", baselines["tfidf"])
    return TaskScore(
        model=result["mean"],
        error=standard_error(task, result, rows),
        baselines=baselines,
        name=name,
        metrics=tuple(task.settings.metrics),
        rows=rows,
        collapsed=bool(result.get("collapsed")),
        outside=int(result.get("outside", 0)),
        notes={BASELINES.get(subject, subject): note for subject, note in notes.items()},
    )


def _average_scores(scores: tuple[TaskScore, ...]) -> Score:
    count = len(scores)
    return Score(
        model=sum(score.model for score in scores) / count,
        error=sum(score.error**2 for score in scores) ** 0.5 / count,
        baselines={
            kind: sum(score.baselines[kind] for score in scores) / count
            for kind in BASELINES
            if all(kind in score.baselines for score in scores)
        },
    )


def _summarize_learning(run: Run) -> Learning:
    curves = []
    for name in ["mean", *(name for name in run.tasks if name in run.history[0])]:
        values = tuple(line[name] for line in run.history)
        curves.append(Curve(name, values, int(np.argmax(values))))
    lowest = min(min(curve.values) for curve in curves)
    steps, diagnostics = tuple(line["step"] for line in run.history), summarize_diagnostics(run.history)
    return Learning(steps, tuple(curves), min(90.0, 10.0 * (lowest // 10.0)), diagnostics)


def _summarize_predictions(run: Run, task: Task) -> Predictions:
    table, label_names = run.read_predictions(task.name), run.label_names.get(task.name, {})
    right = table["truth"] == table["answer"]
    matrix = calibration = numbers = None
    groups: tuple[ValueGroup, ...] = ()
    if task.numbers is not None:
        numbers = tuple(task.numbers)
        groups = tuple(statistics.group_by_truth(table, task.answers, task.numbers))
    elif task.answers:
        truths, answers = (table[column].tolist() for column in ("truth", "answer"))
        shown = [label_names.get(label, label) for label in task.answers]
        matrix = statistics.build_confusion_matrix(truths, answers, task.answers, shown)
        if "probability" in table:
            scored = table["probability"].notna()
            probabilities = table["probability"][scored].to_numpy(dtype=np.float64)
            calibration = statistics.measure_calibration(probabilities, right[scored].to_numpy())
    examples = _select_examples(task, table, label_names)
    return Predictions(task.name, float((~right).mean()), examples, matrix, calibration, numbers, groups)


def _select_examples(task: Task, table: pd.DataFrame, label_names: Mapping[str, str]) -> tuple[Example, ...]:
    numbers = dict(zip(task.answers, task.numbers, strict=True)) if task.numbers is not None else None

    def read(line: Mapping[str, Any], column: str) -> float | None:
        return None if pd.isna(line.get(column)) else float(line[column])

    return tuple(
        Example(
            line["source"],
            label_names.get(line["truth"], line["truth"]),
            label_names.get(line["answer"], line["answer"]),
            read(line, "value"),
            read(line, "probability") if numbers is None else None,
        )
        for line in statistics.select_worst(table, numbers, MAX_EXAMPLES).to_dict("records")
    )


def _summarize_lineage(configuration: Mapping[str, Any], manifests: Mapping[str, Manifest]) -> Lineage:
    origins = [description.made_from for description in manifests.values()]
    keys = list(dict.fromkeys(key for origin in origins for key in origin))
    shared = {key: values.pop() for key in keys if len(values := {origin.get(key, "none") for origin in origins}) == 1}
    backbone = configuration["backbone"]
    path = Path(backbone["path"])
    return Lineage(
        path.name if path.is_absolute() else backbone["path"],  # do not reveal paths of the machine
        backbone["revision"],
        backbone["sha256"],
        shared,
        tuple(key for key in keys if key not in shared),
        json.dumps(configuration["methods"], indent=2, ensure_ascii=False),
    )


def _summarize_bundle(run: Run, name: str, description: Manifest, lineage: Lineage) -> Bundle:
    files = run.read_file_sizes(name, description.files)
    sizes = {
        kind: sum(size for file, size in files.items() if file.startswith(prefix))
        for kind, prefix in FILE_KINDS.items()
    }
    sizes[OTHER_FILES] = sum(files.values()) - sum(sizes.values())
    return Bundle(
        name,
        sizes,
        description.parity,
        description.int8,
        description.openvino,
        description.files.get(manifest.GRAPH),
        {key: description.made_from.get(key, "none") for key in lineage.per_task},
    )
