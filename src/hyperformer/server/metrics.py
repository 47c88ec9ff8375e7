"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        waiting: says how many rows wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hyperformer_requests", "Inference requests by task and status.", ["task", "status"], registry=self.registry
        )
        self.rows = Counter("hyperformer_rows", "Rows that were answered, by task.", ["task"], registry=self.registry)
        self.truncated = Counter(
            "hyperformer_truncated_rows", "Rows whose text was cut, by task.", ["task"], registry=self.registry
        )
        self.seconds = Histogram(
            "hyperformer_request_seconds",
            "Time of an answered request, by task.",
            ["task"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "hyperformer_batch_rows", "Rows that were answered at once.", buckets=ROWS, registry=self.registry
        )
        self.reloads = Counter(
            "hyperformer_reloads", "Changed tasks by outcome.", ["task", "outcome"], registry=self.registry
        )
        Gauge("hyperformer_waiting_rows", "Rows that wait.", registry=self.registry).set_function(waiting)

    def asked(self) -> int:
        """Inference requests so far."""
        found = (sample for metric in self.requests.collect() for sample in metric.samples)
        return int(sum(sample.value for sample in found if sample.name.endswith("_total")))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
