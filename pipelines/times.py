"""The pipeline `times`: latency and throughput of the exported graphs, and the durations of the run's artifacts.

It is not a DVC stage, because its results depend on the machine.
"""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Node, Pipeline


def measure_times(bundles: Path, rows: Path, times: Path) -> None:
    """Measure the latency and throughput of the exported graphs, and write them to the folder `times`."""
    from hyperformer.report.times import measure

    measure(bundles, rows, times)


def create_pipeline() -> Pipeline:
    """Create the pipeline `times`."""
    return Pipeline(
        [
            Node(
                func=measure_times,
                inputs={
                    "bundles": "bundles",
                    "rows": "rows",
                    "times": "times",
                },
                outputs=None,
                name="measure_times",
            ),
        ],
        tags="times",
    )
