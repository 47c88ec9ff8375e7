"""Datasets for whole folders, and for JSON and text files that are replaced atomically.

A node whose output is a folder returns a function `Callable[[Path], None]` instead of data. `FolderDataset.save` calls
it with a new, empty folder, and this folder replaces the previous one when the function returns. This has two reasons:
a run that fails or is killed leaves the previous folder complete, and rows are written while they are read, so they are
never all in memory. Kedro's `PartitionedDataset` saves lazily in the same way: a partition may be a function.
Downstream nodes receive the path of the folder.

`WorkingFolderDataset` is for files that a node writes while it runs, such as resume states and training curves, which
must exist before the node returns. It is an input of the node, which receives the path and writes to the folder itself.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NewType

from kedro.io import AbstractDataset
from kedro_datasets import json as json_datasets
from kedro_datasets import text as text_datasets

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import replace_file, replace_folder, report_damage, write_text

HTMLPreview = NewType("HTMLPreview", str)
"""Kedro-Viz recognizes a preview by the name of this return type."""


def get_path(dataset: AbstractDataset[Any, Any]) -> str | None:
    """Return the path of a dataset; None if it is only in memory."""
    path = dataset._describe().get("filepath")
    return str(path) if path else None


class FolderDataset(AbstractDataset[Callable[[Path], None], Path]):
    """A folder; saving calls a function that fills a new, empty folder, which then replaces the previous folder.

    Loading returns the path of the folder.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """Return the path of the folder."""
        return self._folder

    def save(self, data: Callable[[Path], None]) -> None:
        """Fill a new folder, which then replaces the previous folder; if `data` fails, the previous folder stays.

        Args:
            data: A function that fills an empty folder.
        """
        with replace_folder(self._folder) as new:
            data(new)

    def _exists(self) -> bool:
        return self._folder.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}


class SVGFolderDataset(FolderDataset):
    """A folder of SVG files, with a preview in Kedro-Viz."""

    def preview(self) -> HTMLPreview:
        """Render the files as HTML, one below the other."""
        images = []
        for path in sorted(self._folder.rglob("*.svg")):
            name, code = path.relative_to(self._folder).with_suffix(""), base64.b64encode(path.read_bytes()).decode()
            image = (
                f'<img alt="{html.escape(str(name))}" style="max-width: 100%" src="data:image/svg+xml;base64,{code}">'
            )
            images.append(f"<p>{image}</p>")
        return HTMLPreview("".join(images))


class WorkingFolderDataset(AbstractDataset[None, Path]):
    """A folder that nodes write to while they run; loading creates it if it is missing, and returns its path."""

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """Create the folder if it is missing, and return its path.

        Raises:
            HyperFormerError: The folder cannot be created.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HyperFormerError(
                f"cannot create {self._folder} ({error.strerror}); expected a writable folder. Move or remove the file "
                "at this path, or check its permissions."
            ) from None
        return self._folder

    def save(self, data: None) -> None:
        """Raise NotImplementedError, because nodes write to the folder themselves."""
        raise NotImplementedError(f"{self._folder} cannot be saved; nodes write to this folder while they run")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}


class JSONDataset(json_datasets.JSONDataset):
    """A JSON file that is replaced atomically."""

    def load(self) -> Any:
        """Read the data.

        Raises:
            HyperFormerError: The file is missing or damaged.
        """
        file = Path(self._filepath)
        with report_damage(file):
            return json.loads(file.read_text(encoding="utf-8"))

    def save(self, data: Any) -> None:
        """Write the data to a new file, which then replaces the previous file."""
        with replace_file(Path(self._filepath)) as new, new.open("w", encoding="utf-8") as file:
            json.dump(data, file, **self._save_args)


class TextDataset(text_datasets.TextDataset):
    """A text file that is replaced atomically."""

    def save(self, data: str) -> None:
        """Write the text to a new file, which then replaces the previous file."""
        write_text(Path(self._filepath), data)
