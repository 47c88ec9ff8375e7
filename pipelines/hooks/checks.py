"""Checks before the first node of a run; `hyperformer.preflight` decides what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError

from hyperformer.core.errors import HyperFormerError
from hyperformer.preflight import check_run
from hyperformer.preflight.settings import check_settings
from pipelines.datasets import get_path
from pipelines.hooks.error_messages import short_message

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.pipeline import Pipeline

CHECKPOINT_DATASETS = ("checkpoint", "transfer_starts")
"""Datasets that tell whether the checkpoint was adapted, which is checked even if the pipeline does not use them."""


class RunChecks:
    """Hooks that refuse a run that cannot succeed before its first node runs."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Validate the catalog and all parameters, including those that no node reads, which Kedro would ignore."""
        with short_message():
            self._settings = check_settings(context.config_loader["parameters"])
            self._env, self._conf = context.env, Path(context.config_loader.conf_source)
            with _catalog_errors():
                DataCatalog.from_config(context.config_loader["catalog"], context._get_config_credentials())

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check that the inputs of the pipeline exist, and that the settings that it uses are compatible."""
        inputs = sorted(name for name in pipeline.inputs() if not _is_parameter(name))
        with short_message():
            with _catalog_errors():
                used = {name for name in pipeline.datasets() if not _is_parameter(name)}
                datasets = {name: catalog[name] for name in sorted({*used, *CHECKPOINT_DATASETS})}
            for name in run_params["load_versions"] or {}:
                if getattr(catalog[name], "_version", None) is None:
                    raise HyperFormerError(
                        f"--load-versions names {name!r}, which has no versions in Kedro; expected a dataset with "
                        "`versioned: true`. Restore an earlier version with git checkout and dvc checkout."
                    )
            check_run(
                self._settings,
                pipeline.inputs(),
                pipeline.all_outputs(),
                paths={name: get_path(dataset) for name, dataset in datasets.items()},
                missing=[name for name in inputs if not datasets[name].exists()],
            )
            if "settings" in pipeline.all_outputs() and self._env and self._conf.resolve() == Path("conf").resolve():
                from pipelines.stages import check_stages

                check_stages(self._env)


def _is_parameter(name: str) -> bool:
    return name == "parameters" or name.startswith("params:")


@contextmanager
def _catalog_errors() -> Iterator[None]:
    """Turn Kedro's errors in creating datasets into an error of one line."""
    try:
        yield
    except (DatasetError, KeyError) as error:  # KeyError: unknown credentials
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        lines = [line.strip() for line in message.splitlines() if not line.startswith(("Hint:", "https:"))]
        reason = " ".join(filter(None, lines)).replace("An exception occurred when parsing config for", "")
        raise HyperFormerError(
            f"the catalog is invalid: {reason.strip().rstrip('.:')}. Fix this entry of catalog.yml."
        ) from None
