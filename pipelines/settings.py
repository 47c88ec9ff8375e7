"""Project settings of Kedro: how configuration is read, and the checks when a run begins."""

from __future__ import annotations

from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from pipelines.hooks import Alone, Made, UserMistakes
from pipelines.tracking import Tracked


class ConfigLoader(OmegaConfigLoader):
    """Environments replace each other's blocks as a whole; `--params` changes single settings of what comes out.

    Kedro's own loader puts `--params` into the environment's block first, which then replaces the whole block of base.
    The catalog's root, `globals:data`, follows from the environment's name, so that no two environments share data.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key == "globals":
            own = self.env not in (None, self.base_env, self.default_run_env)
            return {"data": f"data/{self.env}" if own else "data"}
        if key != "parameters":
            return super().__getitem__(key)
        given, self.runtime_params = self.runtime_params, {}
        try:
            found = super().__getitem__(key)
        finally:
            self.runtime_params = given
        merged = OmegaConf.to_container(OmegaConf.merge(found, given or {}), resolve=True)
        return dict(merged)  # type: ignore[arg-type]


CONFIG_LOADER_CLASS = ConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
HOOKS = (UserMistakes(), Alone(), Made(), Tracked())
