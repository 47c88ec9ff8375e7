"""The DVC stages of an environment, derived from its settings, Kedro's pipelines and catalog, and the imports."""

from pipelines.stages.files import check_stages, write_stages

__all__ = ["check_stages", "write_stages"]
