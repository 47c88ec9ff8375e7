"""The code that a module imports, directly or not, as files and folders."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = {"hyperformer": Path("src/hyperformer"), "pipelines": Path("pipelines")}
"""The folder of each package of the project, in its root; these folders are never listed as a whole."""
REFERENCE = re.compile(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?::\w+)?")
"""A string that names a module, and maybe a class in it, which is imported when it is needed."""
CACHE = "__pycache__"


def find_modules() -> dict[str, Path]:
    """Return the file of each module of the project; a package's name stands for its `__init__.py`."""
    modules = {}
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            modules[".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = file
    return modules


class ImportGraph:
    """The imports among the modules of the project, also those in functions, but not those for type checking only."""

    def __init__(self) -> None:
        self._modules = find_modules()
        self._imports: dict[str, set[str]] = {}

    def list_imports(self, module: str) -> set[str]:
        """Return a module, the modules that it imports, directly or not, and their packages.

        The two top-level packages are left out: they only import lazily what their users ask for.
        """
        visited, queue = set[str](), [module]
        while queue:
            current = queue.pop()
            if current in visited or current in PACKAGES:
                continue
            visited.add(current)
            queue += [*self._direct_imports(current), current.rpartition(".")[0]]
        return visited

    def list_code(self, module: str) -> list[str]:
        """Return the files and folders that a module imports; a folder is listed if all its modules are imported.

        A package's other files and folders, such as templates, are part of the package.
        """
        used = {self._modules[name] for name in self.list_imports(module)}
        return [path.as_posix() for folder in PACKAGES.values() for path in _collapse(folder, used)]

    def _direct_imports(self, module: str) -> set[str]:
        if module not in self._imports:
            self._imports[module] = set(_read_imports(module, self._modules))
        return self._imports[module]


def _read_imports(module: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the project that the code of a module names."""
    file = modules[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in _walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = _resolve(node, package)
            names = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in modules else source for name in names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            reference = REFERENCE.fullmatch(node.value)
            names = [reference[1]] if reference else []
        else:
            continue
        yield from (name for name in names if name in modules)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below a node, without the code under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _walk(other)
        else:
            yield child
            yield from _walk(child)


def _resolve(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of the module that names are imported from."""
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    parents = parents[: len(parents) - node.level + 1]
    return ".".join([*parents, *filter(None, [node.module])])


def _collapse(folder: Path, used: set[Path]) -> Iterator[Path]:
    """Yield the paths in a folder that hold the used files and no unused module."""
    top = folder in PACKAGES.values()
    modules = set(folder.rglob("*.py"))
    if not top and modules and modules <= used:
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and used.intersection(path.rglob("*.py")):
            yield from _collapse(path, used)
        elif path in used or (not top and folder / "__init__.py" in used and _is_data(path)):
            yield path


def _is_data(path: Path) -> bool:
    """Return whether a path is a file other than a module, or a folder of such files."""
    if path.name.startswith(".") or path.name == CACHE or path.suffix == ".py":
        return False
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return any(CACHE not in file.parts for file in files) and not any(file.suffix == ".py" for file in files)
