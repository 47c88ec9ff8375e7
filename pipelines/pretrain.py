"""The pipeline `pretrain`: a small backbone, pretrained on text.

The backbone of the default settings is part of the repository, so `kedro run` without `--pipelines` skips this
pipeline.
"""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.settings import PretrainingSettings, Tasks
from pipelines.states import create_cleanup_node


def make_corpus(pretraining: PretrainingSettings, tasks: Tasks, rows: Path, seed: int):
    """Build the rows that the backbone is pretrained on."""
    from hyperformer.embedded.corpus import build_pretraining_rows
    from hyperformer.tasks import make_tasks

    return build_pretraining_rows(pretraining, make_tasks(tasks), rows, seed)


def pretrain_backbone(corpus, pretraining: PretrainingSettings, rows: Path, seed: int, resume_states: Path):
    """Pretrain a backbone on the corpus."""
    from hyperformer.training import pretrain

    inputs = {"rows": rows, **({"text": Path(pretraining.text_file)} if pretraining.text_file else {})}
    return pretrain(corpus, pretraining, inputs, seed, resume_states / "pretrain")


def create_pipeline() -> Pipeline:
    """Create the pipeline `pretrain`."""
    return Pipeline(
        [
            node(make_corpus, ["params:pretraining", "params:tasks", "rows", "params:seed"], "corpus", name="corpus"),
            node(
                pretrain_backbone,
                ["corpus", "params:pretraining", "rows", "params:seed", "resume_states"],
                "pretrained_backbone",
                name="pretrained_backbone",
            ),
            create_cleanup_node("pretrain", ["pretrained_backbone"]),
        ],
        tags="pretrain",
    )
