"""The files of a task: a single file, or a folder with a file for each split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Split
from hyperformer.readers import FORMATS, is_row_file
from hyperformer.readers.files import GZIP

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""Names of the file of each split, without suffix."""


@dataclass(frozen=True)
class TaskFiles:
    """The files of a task.

    Attributes:
        task: the name of the task.
        argument: the path on the command line.
        files: the file of each split that has one.
    """

    task: str
    argument: Path
    files: dict[Split, Path]

    @property
    def is_source(self) -> bool:
        """Return whether the argument can be the task's source: a folder in the current folder."""
        return self.argument.is_dir() and self.argument.resolve().is_relative_to(Path.cwd())

    def source_split(self, split: Split) -> str:
        """Return the name of the source split that is read for a split that has a file.

        Files that are copied are renamed to the name of their split.
        """
        return remove_suffixes(self.files[split]) if self.is_source else split


def find_files(arguments: list[str]) -> list[TaskFiles]:
    """Find the files of each path on the command line, which is a task.

    Raises:
        HyperFormerError: a path is neither a file of rows nor a folder with a train file, or two tasks have one name.
    """
    tasks = [_find_task(Path(argument)) for argument in arguments]
    names = [task.task for task in tasks]
    for task in tasks:
        if names.count(task.task) > 1:
            raise HyperFormerError(
                f"two paths give the task name {task.task!r}; expected a different name for each task. Rename a file "
                "or folder."
            )
    return tasks


def _find_task(path: Path) -> TaskFiles:
    formats = ", ".join(f".{suffix}" for suffix in FORMATS)
    if path.is_dir():
        files = _find_splits(path)
        if "train" not in files:
            names = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "no files"
            raise HyperFormerError(
                f"the folder {path} has {names}; expected a file train ({formats}, plain or .gz), and optionally "
                "validation and test. Rename the file, or give the file itself."
            )
        return TaskFiles(path.resolve().name, path, files)
    if not path.is_file():
        raise HyperFormerError(f"{path} does not exist; expected a file of rows, or a folder with them. Fix the path.")
    if not is_row_file(path.name):
        raise HyperFormerError(f"{path} is not a file of rows; expected {formats}, plain or .gz. Convert it.")
    if remove_suffixes(path) in SPLIT_NAMES["train"]:
        raise HyperFormerError(
            f"{path} is the train file of a folder, whose name the task gets; expected the folder. Use "
            f"{path.resolve().parent.name!r}, or rename the file."
        )
    return TaskFiles(remove_suffixes(path), path, {"train": path})


def _find_splits(folder: Path) -> dict[Split, Path]:
    files: dict[Split, Path] = {}
    for split, stems in SPLIT_NAMES.items():
        matches = [file for file in sorted(folder.iterdir()) for stem in stems if is_row_file(file.name, stem)]
        if len(matches) > 1:
            names = " and ".join(file.name for file in matches)
            raise HyperFormerError(f"the folder {folder} has {names}; expected one file of {split} rows. Remove one.")
        if matches:
            files[split] = matches[0]
    return files


def remove_suffixes(file: Path) -> str:
    """Return the name of a file of rows without its suffixes."""
    return Path(file.name[: -len(GZIP)] if file.name.lower().endswith(GZIP) else file.name).stem
