"""The pipeline `language`: rows of the embedded synthetic language."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from hyperformer.settings import DataSettings, EmbeddedSettings, Tasks


def make_language_rows(tasks: Tasks, data: DataSettings, embedded: EmbeddedSettings, seed: int):
    """Generate the rows of the embedded tasks."""
    from hyperformer.embedded.suite import write_language_rows

    return write_language_rows(tasks, data, embedded, seed)


def create_pipeline() -> Pipeline:
    """Create the pipeline `language`."""
    return Pipeline(
        [
            node(
                make_language_rows,
                ["params:tasks", "params:data", "params:embedded", "params:seed"],
                "language_rows",
                name="language_rows",
            )
        ],
        tags="language",
    )
