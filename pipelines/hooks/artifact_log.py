"""A log of the saved artifacts, with their paths and durations."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from pipelines.datasets import get_path

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Node

log = logging.getLogger(__name__)


class ArtifactLog:
    """Hooks that log each saved artifact with its path and duration, and write the durations to the folder `times`.

    The duration of an artifact is the time from the start of its node until it is saved.
    """

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Keep the catalog for later hooks."""
        self._catalog = catalog

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start the clock of a node."""
        self._start = time.monotonic()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log a saved dataset and record its duration, unless the dataset is only in memory."""
        from hyperformer.core.progress import record_duration

        path, seconds = get_path(self._catalog[dataset_name]), time.monotonic() - self._start
        if path:
            log.info("saved %s to %s (%.0f s)", dataset_name, path, seconds)
            record_duration(self._catalog.load("times"), dataset_name, seconds)
