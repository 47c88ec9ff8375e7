"""Prometheus metrics of a server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TIME_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histogram of request times, in seconds."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the histogram of batch sizes, in rows."""
UNKNOWN = ""
"""Label of all unknown tasks; no task has a blank name."""


class Metrics:
    """Metrics of one server, in a Prometheus registry that no other server shares.

    Args:
        queued_rows: returns the number of rows in the queue.
    """

    def __init__(self, queued_rows: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hyperformer_requests", "Inference requests by task and status.", ["task", "status"], registry=self.registry
        )
        self.rows = Counter("hyperformer_rows", "Answered rows by task.", ["task"], registry=self.registry)
        self.truncated = Counter(
            "hyperformer_truncated_rows", "Rows whose text was truncated, by task.", ["task"], registry=self.registry
        )
        self.seconds = Histogram(
            "hyperformer_request_seconds",
            "Duration of successful inference requests by task, in seconds.",
            ["task"],
            buckets=TIME_BUCKETS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "hyperformer_batch_rows", "Rows per batch.", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.reloads = Counter(
            "hyperformer_reloads",
            "Reloads of changed tasks, by task and outcome.",
            ["task", "outcome"],
            registry=self.registry,
        )
        Gauge("hyperformer_waiting_rows", "Rows in the queue.", registry=self.registry).set_function(queued_rows)

    def count_requests(self) -> int:
        """Return the number of inference requests that have ended, with any status."""
        samples = (sample for metric in self.requests.collect() for sample in metric.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
