"""`pretrain`: a small backbone from text. Its default outcome is shipped; `kedro run` alone does not run it."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import PretrainingSettings, Tasks
from pipelines.states import states_removed


def make_corpus(pretraining: PretrainingSettings, tasks: Tasks, rows: Path, seed: int):
    from hyperformer.embedded.corpus import pretraining_rows
    from hyperformer.tasks import make

    return pretraining_rows(pretraining, make(tasks), rows, seed)


def pretrain_backbone(corpus, pretraining: PretrainingSettings, rows: Path, seed: int, resume_states: Path):
    from hyperformer.training import pretrain

    inputs = {"rows": rows, **({"text": Path(pretraining.text_file)} if pretraining.text_file else {})}
    return pretrain(corpus, pretraining, inputs, seed, resume_states / "pretrain")


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            node(make_corpus, ["params:pretraining", "params:tasks", "rows", "params:seed"], "corpus", name="corpus"),
            node(
                pretrain_backbone,
                ["corpus", "params:pretraining", "rows", "params:seed", "resume_states"],
                "pretrained_backbone",
                name="pretrained_backbone",
            ),
            states_removed("pretrain", ["pretrained_backbone"]),
        ],
        tags="pretrain",
    )
