"""Kedro's project settings: the configuration loader and the hooks."""

from __future__ import annotations

from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from pipelines.hooks import ArtifactLog, ErrorMessages, MLflowLogger, RunChecks, RunLock


class ConfigLoader(OmegaConfigLoader):
    """Configuration loader that applies `--params`, setting by setting, after environments have been merged.

    A block of an environment replaces the same block of base. Kedro's loader merges `--params` into the environment
    first, so that a single setting would replace the whole block of base. The root of the catalog, `globals:data`, is
    `data` in base and local, and `data/<env>` in every other environment, so that only base and local share data.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the configuration of a kind, such as `parameters` or `catalog`."""
        if key == "globals":
            named = self.env not in (None, self.base_env, self.default_run_env)
            return {"data": f"data/{self.env}" if named else "data"}
        if key != "parameters":
            return super().__getitem__(key)
        overrides, self.runtime_params = self.runtime_params, {}
        try:
            parameters = super().__getitem__(key)
        finally:
            self.runtime_params = overrides
        merged = OmegaConf.to_container(OmegaConf.merge(parameters, overrides or {}), resolve=True)
        return dict(merged)  # type: ignore[arg-type]


CONFIG_LOADER_CLASS = ConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
HOOKS = (ErrorMessages(), RunChecks(), RunLock(), ArtifactLog(), MLflowLogger())
