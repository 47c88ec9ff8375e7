"""Kedro's project settings: the configuration loader and the hooks."""

from __future__ import annotations

from pipelines.config_loader import ConfigLoader
from pipelines.hooks import PROGRESS, ArtifactLog, ErrorMessages, MLflowLogger, RunChecks, RunLock, Threads

CONFIG_LOADER_CLASS = ConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
HOOKS = (ErrorMessages(), RunChecks(), RunLock(), Threads(), ArtifactLog(), PROGRESS, MLflowLogger())
