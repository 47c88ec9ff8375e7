"""The hooks of the Kedro project, one module for each job."""

from pipelines.hooks.artifact_log import ArtifactLog
from pipelines.hooks.checks import RunChecks
from pipelines.hooks.error_messages import ErrorMessages
from pipelines.hooks.run_lock import RunLock
from pipelines.hooks.tracking import MLflowLogger

__all__ = ["ArtifactLog", "ErrorMessages", "MLflowLogger", "RunChecks", "RunLock"]
