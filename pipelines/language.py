"""The pipeline `language`: rows of the embedded synthetic language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import DataSettings, EmbeddedSettings, Tasks


def generate_language_rows(
    tasks: Tasks, data: DataSettings, embedded: EmbeddedSettings, seed: int
) -> Callable[[Path], None]:
    """Generate the rows of the embedded tasks."""
    from hyperformer.embedded.suite import write_language_rows

    return write_language_rows(tasks, data, embedded, seed)


def create_pipeline() -> Pipeline:
    """Create the pipeline `language`."""
    return Pipeline(
        [
            Node(
                func=generate_language_rows,
                inputs={
                    "tasks": "params:tasks",
                    "data": "params:data",
                    "embedded": "params:embedded",
                    "seed": "params:seed",
                },
                outputs="language_rows",
                name="generate_language_rows",
            ),
        ],
        tags="language",
    )
