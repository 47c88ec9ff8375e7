"""Project settings of Kedro: where configuration is read, and the checks when a run begins."""

from __future__ import annotations

from kedro.config import OmegaConfigLoader

from pipelines.hooks import UserMistakes

CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
HOOKS = (UserMistakes(),)
