"""Parsing and resolving of configuration files, with errors that name the file and the fix."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from hyperformer.core.errors import first_line
from hyperformer.settings import ConfigurationError
from hyperformer.settings.merge import Layer

Files = Mapping[Path, DictConfig]
"""Unresolved configuration of each file."""


def parse_file(file: Path, content: bytes) -> DictConfig:
    """Parse a configuration file, without resolving its references `${...}`.

    Raises:
        ConfigurationError: The file is not a mapping in valid YAML, or a key or value has an unsupported type.
    """
    try:
        text = content.decode("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None and not isinstance(root, yaml.MappingNode):
            kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
            raise ConfigurationError(f"{file} is {kind}; expected a mapping. Write one `key: value` in each line.")
        _check_equal_keys(file, root)
        return DictConfig({}) if root is None else OmegaConf.load(io.StringIO(text))  # type: ignore[return-value]
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{file} is not valid UTF-8 at byte {error.start}; expected a YAML file in UTF-8. Save it in this encoding."
        ) from None
    except RecursionError:
        raise ConfigurationError(
            f"{file} is nested too deeply, or an anchor contains itself; expected a finite mapping. Remove the alias "
            "(*name) that is inside its own anchor (&name)."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{file}{_describe(error)}. Fix the YAML in this file; quote texts with special characters."
        ) from None
    except GrammarParseError as error:
        raise _reference_error(error, {file: yaml.safe_load(text)}) from None
    except OmegaConfBaseException as error:
        where = f" at {error.full_key!r}" if error.full_key else ""
        raise ConfigurationError(
            f"{file} has an unsupported key or value{where} ({first_line(error)}); expected texts, numbers, booleans, "
            "null, lists and mappings. Quote the key or value."
        ) from None


def _check_equal_keys(file: Path, node: yaml.Node | None) -> None:
    """Refuse keys of one mapping that are equal in Python, such as 1, 1.0 and true: one would replace the other."""
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys: dict[Any, yaml.ScalarNode] = {}
        for key, value in node.value:
            children.append(value)
            if isinstance(key, yaml.ScalarNode) and key.tag.rpartition(":")[2] in ("bool", "int", "float"):
                other = keys.setdefault(yaml.safe_load(key.value), key)
                if other is not key:
                    raise ConfigurationError(
                        f"{file}, line {key.start_mark.line + 1}: the keys {other.value} and {key.value} are equal in "
                        "YAML; expected different keys. Quote or remove one."
                    )
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for child in children:
        _check_equal_keys(file, child)


def _describe(error: yaml.YAMLError) -> str:
    """Return the position and the reason of an error in YAML."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        problem = f"{error.problem or error.context}{_hint(str(error.problem))}"
        return f", line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {problem}"
    if isinstance(error, yaml.reader.ReaderError):
        return f" contains the control character {chr(error.character)!r}; expected text in UTF-8"  # type: ignore[arg-type]
    return f": {first_line(error)}"


def _hint(problem: str) -> str:
    if "'$'" in problem:
        return r" (in double quotes, write \\${ for a literal ${, or use single quotes)"
    if r"'\t'" in problem:
        return " (a tab; expected spaces)"
    return ""


def check_duplicates(files: Files) -> None:
    """Check that no two files of a folder set the same key.

    Raises:
        ConfigurationError: Two files set the same key.
    """
    trees = {file: OmegaConf.to_container(config) for file, config in files.items()}
    for (first, tree), (second, other) in combinations(sorted(trees.items()), 2):
        duplicate = next(_common_keys(tree, other), None)
        if duplicate is not None:
            raise ConfigurationError(
                f"both {first} and {second} set {duplicate!r}; expected each key in one file of a folder. Remove it "
                "from one of them."
            )


def _common_keys(tree: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys that both trees set; keys that begin with an underscore are Kedro's templates."""
    for key in tree:
        name = f"{path}.{key}" if path else str(key)
        if key not in other or name.startswith("_"):
            continue
        if isinstance(tree[key], dict) and isinstance(other[key], dict):
            yield from _common_keys(tree[key], other[key], name)
        else:
            yield name


@contextmanager
def reference_errors(sources: Mapping[Any, Any]) -> Iterator[None]:
    """Turn errors in resolving references `${...}` into an error that names the setting and where it is.

    Args:
        sources: The unresolved configuration of each source, such as a file; later sources replace earlier ones.

    Raises:
        ConfigurationError: A reference cannot be resolved.
    """
    try:
        yield
    except (GrammarParseError, InterpolationResolutionError, UnsupportedInterpolationType, RecursionError) as error:
        raise _reference_error(error, sources) from None


def _reference_error(error: Exception, sources: Mapping[Any, Any]) -> ConfigurationError:
    key = getattr(error, "full_key", None) or ""
    source, value = _find(key, sources)
    if isinstance(error, RecursionError):
        reason = "a setting refers to itself"
    elif isinstance(error, GrammarParseError):
        reason = "this is not a valid reference"
    else:
        reason = first_line(error).removeprefix("Interpolation key").strip().rstrip(".")
        reason = re.sub("^('[^']*') not found$", r"\1 is not a setting", reason)
    what = f"the setting {key!r}" if key else "a setting"
    escaped = "" if value is None else f": '{value.replace('${', chr(92) + '${')}'"
    got = "" if value is None else f" is {value!r}, but"
    return ConfigurationError(
        f"{source}: {what}{got} ${{...}} refers to another setting and {reason}; expected the name of a setting. "
        rf"For a literal ${{, write \${{ in single quotes{escaped}."
    )


def _find(key: str, sources: Mapping[Any, Any]) -> tuple[Any, str | None]:
    """Return the last source that has a text at a dotted key, and the text; None: no source has one."""
    for source, config in reversed(sources.items()):
        value = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
        for part in re.findall(r"[^.\[\]]+", key):
            if isinstance(value, dict):
                value = next((child for name, child in value.items() if str(name) == part), None)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
        if isinstance(value, str) and "${" in value:
            return source, value
    return next(reversed(sources), "the configuration"), None


def to_layer(files: Files) -> Layer:
    """Return the settings of files by the path of the file, without resolving their references."""
    return {_shorten(file): OmegaConf.to_container(config) for file, config in files.items()}  # type: ignore[misc]


def _shorten(file: Path) -> str:
    """Return a path relative to the working directory, if it is inside."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
