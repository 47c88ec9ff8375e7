"""Settings of the default source of rows."""

from __future__ import annotations

from hyperformer.settings.base import SettingsModel


class DataSettings(SettingsModel):
    """Default source of rows, for tasks whose `source` has no `path`."""

    source: str
    """`embedded` (the generated tasks), a local folder, or the name of a dataset on the Hugging Face Hub."""
