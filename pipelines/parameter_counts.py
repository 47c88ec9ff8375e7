"""The pipeline `parameter_counts`: added, trainable and total parameters, counted without loading weights."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from hyperformer.settings import BackboneSettings, Methods, Tasks


def count_parameters(backbone: BackboneSettings, method: str, methods: Methods, tasks: Tasks) -> dict[str, float]:
    """Count the parameters of the configured method."""
    from hyperformer.model.counts import count_parameters

    return count_parameters(backbone, methods.get_method(method), tasks)


def create_pipeline() -> Pipeline:
    """Create the pipeline `parameter_counts`."""
    return Pipeline(
        [
            Node(
                func=count_parameters,
                inputs={
                    "backbone": "params:backbone",
                    "method": "params:method",
                    "methods": "params:methods",
                    "tasks": "params:tasks",
                },
                outputs="parameter_counts",
                name="count_parameters",
            ),
        ],
        tags="parameter_counts",
    )
