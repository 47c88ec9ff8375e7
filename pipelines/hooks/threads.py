"""The number of CPU threads of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from hyperformer.core.cpus import use_threads

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class Threads:
    """Hooks that set the number of threads before the first node of a run."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the configuration loader for later hooks."""
        self._config = context.config_loader

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Set the number of threads of PyTorch, and of the processes that nodes start."""
        use_threads(self._config["parameters"].get("threads"))
