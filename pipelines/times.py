"""The pipeline `times`: latency and throughput of the exported graphs, and the durations of the run's artifacts.

It is not a DVC stage, because its results depend on the machine.
"""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node


def measure_times(bundles: Path, rows: Path, times: Path) -> bool:
    """Measure the latency and throughput of the exported graphs, and write them to the folder `times`."""
    from hyperformer.report.times import measure

    measure(bundles, rows, times)
    return True


def create_pipeline() -> Pipeline:
    """Create the pipeline `times`."""
    return Pipeline([node(measure_times, ["bundles", "rows", "times"], "times_measured", name="times")], tags="times")
