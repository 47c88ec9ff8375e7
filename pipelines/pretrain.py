"""`pretrain`: a small backbone from text. Its default outcome is shipped; `kedro run` alone does not run it."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from hyperformer.config import PretrainingSettings, Tasks


def make_corpus(pretraining: PretrainingSettings, tasks: Tasks, rows: Path, seed: int):
    from hyperformer.data import text_rows, training_texts, write_corpus
    from hyperformer.embedded.corpus import corpus
    from hyperformer.tasks import make

    if not pretraining.text:
        return write_corpus(corpus(pretraining.rows, seed))
    extra = training_texts(rows, make(tasks))
    return write_corpus(text_rows(pretraining.text, extra, pretraining.rows, pretraining.max_tokens // 2, seed))


def pretrain_backbone(corpus: Path, pretraining: PretrainingSettings, seed: int, resume_states: Path):
    from hyperformer.training import pretrain

    return pretrain(corpus, pretraining, seed, resume_states)


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            node(
                make_corpus, ["params:pretraining", "params:tasks", "rows", "params:seed"], "corpus", name="make_corpus"
            ),
            node(
                pretrain_backbone,
                ["corpus", "params:pretraining", "params:seed", "resume_states"],
                "pretrained_backbone",
                name="pretrain_backbone",
            ),
        ],
        tags="pretrain",
    )
