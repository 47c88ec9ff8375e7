"""The pipeline `settings`: the validated settings in a file, which the DVC stages of an environment depend on."""

from __future__ import annotations

from typing import Any

import yaml
from kedro.pipeline import Node, Pipeline


def write_settings(parameters: dict[str, Any]) -> str:
    """Write all settings as YAML, with defaults, and without locations on one machine, which change no result."""
    from hyperformer.preflight.settings import check_settings
    from hyperformer.settings.training import LOCATION_SETTINGS

    settings = check_settings(parameters).model_dump(mode="json", exclude={"training": LOCATION_SETTINGS})
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def create_pipeline() -> Pipeline:
    """Create the pipeline `settings`."""
    return Pipeline(
        [
            Node(
                func=write_settings,
                inputs={"parameters": "parameters"},
                outputs="settings",
                name="write_settings",
            ),
        ],
        tags="settings",
    )
