"""Datasets for folders, which kedro-datasets has none for, and its own for files, which are put in place whole here."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NewType, TextIO

from kedro.io import AbstractDataset
from kedro_datasets import json as json_datasets
from kedro_datasets import text as text_datasets

from hyperformer.types import HyperFormerError

HTMLPreview = NewType("HTMLPreview", str)
"""Kedro-Viz goes by this name of what `preview` gives."""


class FolderDataset(AbstractDataset[Callable[[Path], None], Path]):
    """A folder artifact: saved by a function that fills an empty folder beside it, which then takes its place.

    Loading gives the folder's path; what reads it knows its layout.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        return self._folder

    def save(self, data: Callable[[Path], None]) -> None:
        beside = self._folder.with_name(f".{self._folder.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            data(beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        mode = beside.stat().st_mode & 0o666  # some libraries write for the owner alone
        for path in beside.rglob("*"):
            if path.is_file():
                path.chmod(mode)
        before = beside.with_suffix(".old")
        shutil.rmtree(before, ignore_errors=True)
        if self._folder.exists():
            self._folder.rename(before)
        beside.rename(self._folder)
        shutil.rmtree(before, ignore_errors=True)

    def _exists(self) -> bool:
        return self._folder.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}


class FiguresDataset(FolderDataset):
    """A folder of SVG files, which Kedro-Viz shows one below the other."""

    def preview(self) -> HTMLPreview:
        shown = []
        for path in sorted(self._folder.rglob("*.svg")):
            name, code = path.relative_to(self._folder).with_suffix(""), base64.b64encode(path.read_bytes()).decode()
            shown.append(f'<p><img alt="{name}" style="max-width: 100%" src="data:image/svg+xml;base64,{code}"></p>')
        return HTMLPreview("".join(shown))


class WorkplaceDataset(AbstractDataset[None, Path]):
    """A folder that a node works in and that no stage owns: loading makes it where it is missing and gives its path."""

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HyperFormerError(
                f"{self._folder} cannot be used ({error.strerror}), expected a folder to work in; move away what is "
                "there"
            ) from None
        return self._folder

    def save(self, data: None) -> None:
        raise NotImplementedError(f"{self._folder} is a workplace; nothing is saved to it as a whole")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}


class JSONDataset(json_datasets.JSONDataset):
    """A JSON file that is there as a whole, or as it was before."""

    def save(self, data: Any) -> None:
        with _whole(Path(self._filepath)) as file:
            json.dump(data, file, **self._save_args)


class TextDataset(text_datasets.TextDataset):
    """A text file that is there as a whole, or as it was before."""

    def save(self, data: str) -> None:
        with _whole(Path(self._filepath)) as file:
            file.write(data)


@contextmanager
def _whole(place: Path) -> Iterator[TextIO]:
    """A file beside its place, which it takes once all is written."""
    beside = place.with_name(f".{place.name}.new")
    beside.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield file
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(place)
