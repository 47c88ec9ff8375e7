"""Checks before the first node of a run; `hyperformer.preflight` decides what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl
from yaml import YAMLError

from hyperformer.core.errors import HyperFormerError
from hyperformer.preflight import check_run
from hyperformer.preflight.settings import check_settings
from pipelines.datasets import get_path
from pipelines.hooks.error_messages import short_message

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

CHECKPOINT_DATASETS = ("checkpoint", "transfer_starts")
"""Datasets that tell whether the checkpoint was adapted, which is checked even if the pipeline does not use them."""


class RunChecks:
    """Hooks that refuse a run that cannot succeed before its first node runs."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Validate all parameters, including those that no node reads, which Kedro would ignore."""
        with short_message():
            try:
                parameters = context.config_loader["parameters"]
            except YAMLError as error:
                raise HyperFormerError(f"{error} Fix the YAML in this file.".replace("\n", " ")) from None
            self._settings = check_settings(parameters)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check that the inputs of the pipeline exist, and that the settings that it uses are compatible."""
        inputs = sorted(name for name in pipeline.inputs() if not name.startswith("params:"))
        with short_message():
            datasets = {name: catalog[name] for name in (*inputs, *CHECKPOINT_DATASETS)}
            check_run(
                self._settings,
                pipeline.inputs(),
                pipeline.all_outputs(),
                paths={name: get_path(dataset) for name, dataset in datasets.items()},
                missing=[name for name in inputs if not datasets[name].exists()],
            )
