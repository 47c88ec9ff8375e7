"""The pipeline `parameter_counts`: added, trainable and total parameters, counted without loading weights."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from hyperformer.settings import BackboneSettings, Methods, Tasks


def count_parameters(backbone: BackboneSettings, method: str, methods: Methods, tasks: Tasks):
    """Count the parameters of the configured method."""
    from hyperformer.model.counts import count_parameters

    return count_parameters(backbone, methods.get_method(method), tasks)


def create_pipeline() -> Pipeline:
    """Create the pipeline `parameter_counts`."""
    return Pipeline(
        [
            node(
                count_parameters,
                ["params:backbone", "params:method", "params:methods", "params:tasks"],
                "parameter_counts",
                name="parameter_counts",
            )
        ],
        tags="parameter_counts",
    )
