"""Datasets for folders, which kedro-datasets has none for."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NewType

from kedro.io import AbstractDataset

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
