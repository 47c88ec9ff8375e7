"""The hooks of the Kedro project, one module for each job."""

from pipelines.hooks.artifact_log import ArtifactLog
from pipelines.hooks.checks import RunChecks
from pipelines.hooks.error_messages import ErrorMessages
from pipelines.hooks.interruption import PROGRESS
from pipelines.hooks.run_lock import RunLock
from pipelines.hooks.threads import Threads
from pipelines.hooks.tracking import MLflowLogger

__all__ = ["PROGRESS", "ArtifactLog", "ErrorMessages", "MLflowLogger", "RunChecks", "RunLock", "Threads"]
