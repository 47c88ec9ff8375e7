"""Resume states: found again by what they are a state of."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hyperformer import manifest
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

WORK, LOCK = "work.json", "lock"
CODE = Path(__file__).parents[1]
ELSEWHERE = {"resume_from", "rendezvous"}  # settings that say where, and not what


def work_of(settings: Mapping[str, BaseModel], inputs: Mapping[str, Path], seed: int) -> dict[str, Any]:
    """What a state is a state of: settings, the hashes of inputs and code, and the seed; by name, one level deep."""
    given = {name: part.model_dump(mode="json", exclude=ELSEWHERE) for name, part in settings.items()}
    hashes = {name: manifest.folder_sha256(path) for name, path in inputs.items() if path.exists()}
    return dict(_leaves({**given, **hashes, "code": manifest.folder_sha256(CODE), "seed": seed}))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def fresh_state(states: Path, work: Mapping[str, Any], resume_from: Path | None = None) -> Path:
    """The folder for resume states of exactly this work; states of other work in `states` are removed, and said so.

    Args:
        resume_from: a state from elsewhere to go on from.
    Raises:
        HyperFormerError: that one is of other work, or no state.
    """
    state = states / hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:16]
    if resume_from is not None:
        differences = _differences(resume_from, work)
        if differences is None:
            raise HyperFormerError(
                f"training.resume_from is {str(resume_from)!r}, which holds no {WORK}; expected a folder of resume "
                f"states, as {state}"
            )
        if differences:
            raise HyperFormerError(
                f"training.resume_from is {str(resume_from)!r}, a state of other work: {'; '.join(differences)}; "
                "put that back, or leave resume_from out to begin anew"
            )
    kept = {state.resolve(), *([resume_from.resolve()] if resume_from else [])}
    for other in states.glob("*"):
        if other.is_dir() and other.resolve() not in kept:
            differences = _differences(other, work) or ["it is unfinished or foreign"]
            log.info("a state of other work is not used (%s): %s is removed", "; ".join(differences[:3]), other)
            _remove(other)
    if resume_from is not None and resume_from.resolve() != state.resolve():
        beside = state.with_name(f".{state.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(resume_from, beside)
        shutil.rmtree(state, ignore_errors=True)
        beside.rename(state)
    state.mkdir(parents=True, exist_ok=True)
    (state / WORK).write_text(json.dumps(work, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return state


@contextmanager
def alone(states: Path) -> Iterator[None]:
    """Sees to it that no other process of this machine works on a folder of states meanwhile.

    Raises:
        HyperFormerError: one does.
    """
    states.mkdir(parents=True, exist_ok=True)
    with (states / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HyperFormerError(
                f"another run is at work on the states in {states}; wait for its end or stop it, or take another "
                "environment"
            ) from None
        yield


def remove_states(states: Path) -> None:
    """Remove the states of one kind of work, whose results are saved."""
    if states.exists():
        _remove(states)


def _remove(folder: Path) -> None:
    """Remove a folder that is renamed first: a run killed meanwhile leaves no part that another would resume."""
    beside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(beside, ignore_errors=True)
    folder.rename(beside)
    shutil.rmtree(beside, ignore_errors=True)


def damaged(file: Path, error: Exception) -> HyperFormerError:
    """What to say of a file beside the states that cannot be read."""
    return HyperFormerError(
        f"the resume state {file.parent} is damaged: {file.name} cannot be read ({error}); remove that folder to begin "
        "anew"
    )


def _differences(state: Path, work: Mapping[str, Any]) -> list[str] | None:
    """How a state's work differs from this; None where it does not say."""
    try:
        other = dict(json.loads((state / WORK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    there_and_here = json.loads(json.dumps(dict(work)))
    names = sorted(name for name in {*other, *work} if other.get(name) != there_and_here.get(name))
    return [f"{name} is {_short(other, name)} there and {_short(there_and_here, name)} here" for name in names]


def _short(work: Mapping[str, Any], name: str) -> str:
    if name not in work:
        return "not set"
    said = json.dumps(work[name], ensure_ascii=False)
    return said if len(said) <= 40 else f"{said[:12]}…"
