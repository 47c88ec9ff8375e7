"""The pipeline `pretrain`: a small backbone, pretrained on text.

The backbone of the default settings is part of the repository, so `kedro run` without `--pipelines` skips this
pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import PretrainingSettings, Tasks
from pipelines.cleanup import create_cleanup_node


def build_corpus(pretraining: PretrainingSettings, tasks: Tasks, rows: Path, seed: int) -> Sequence[dict[str, str]]:
    """Build the rows that the backbone is pretrained on."""
    from hyperformer.embedded.corpus import build_pretraining_rows
    from hyperformer.tasks import make_tasks

    return build_pretraining_rows(pretraining, make_tasks(tasks), rows, seed)


def pretrain_backbone(
    corpus: Sequence[dict[str, str]],
    pretraining: PretrainingSettings,
    rows: Path,
    seed: int,
    resume_states: Path,
    threads: int | None,
) -> Callable[[Path], None]:
    """Pretrain a backbone on the corpus."""
    from hyperformer.training import pretrain

    inputs = {"rows": rows, **({"text": Path(pretraining.text_file)} if pretraining.text_file else {})}
    return pretrain(corpus, pretraining, inputs, seed, resume_states / "pretrain", threads)


def create_pipeline() -> Pipeline:
    """Create the pipeline `pretrain`."""
    return Pipeline(
        [
            Node(
                func=build_corpus,
                inputs={
                    "pretraining": "params:pretraining",
                    "tasks": "params:tasks",
                    "rows": "rows",
                    "seed": "params:seed",
                },
                outputs="corpus",
                name="build_corpus",
            ),
            Node(
                func=pretrain_backbone,
                inputs={
                    "corpus": "corpus",
                    "pretraining": "params:pretraining",
                    "rows": "rows",
                    "seed": "params:seed",
                    "resume_states": "resume_states",
                    "threads": "params:threads",
                },
                outputs="pretrained_backbone",
                name="pretrain_backbone",
            ),
            create_cleanup_node("pretrain", ["pretrained_backbone"]),
        ],
        tags="pretrain",
    )
