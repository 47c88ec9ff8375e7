"""Resume states, identified by a fingerprint of the run that wrote them."""

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

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import folder_sha256, is_damage, sha256, write_text
from hyperformer.settings.training import LOCATION_SETTINGS

log = logging.getLogger(__name__)

FINGERPRINT = "work.json"
LOCK = "lock"
TENSORS = "trained.safetensors"
"""File of the trained tensors of a resume state."""
CHECKSUMS = "seal.json"
"""File of the checksums of a resume state; a state without it is incomplete."""
PREFIX = "checkpoint-"
"""Prefix of the folder of a resume state; the rest of its name is the step."""
CODE = Path(__file__).parents[1]


def compute_fingerprint(
    settings: Mapping[str, BaseModel], inputs: Mapping[str, Path], seed: int, threads: int | None
) -> dict[str, Any]:
    """Return, by dotted name, the values that identify a run: settings, seed, threads, and hashes of inputs and code.

    `threads` is None for several machines, which may have different numbers of CPUs. The settings in
    `LOCATION_SETTINGS` and inputs that do not exist are left out.
    """
    values = {name: block.model_dump(mode="json", exclude=LOCATION_SETTINGS) for name, block in settings.items()}
    hashes = {name: folder_sha256(path) for name, path in inputs.items() if path.exists()}
    return dict(_leaves({**values, **hashes, "code": folder_sha256(CODE), "seed": seed, "threads": threads}))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def prepare_state(states: Path, fingerprint: Mapping[str, Any], resume_from: Path | None = None) -> Path:
    """Return the folder for resume states of exactly this run; remove and log incompatible states in `states`.

    Args:
        states: the folder of all resume states.
        fingerprint: fingerprint of this run.
        resume_from: a folder of resume states to copy into `states` first; None: use those in `states`, if any.

    Raises:
        HyperFormerError: if `resume_from` is incompatible with this run, or is not a folder of resume states.
    """
    state = states / hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]
    if resume_from is not None:
        differences = _differences(resume_from, fingerprint)
        if differences is None:
            raise HyperFormerError(
                f"training.resume_from is {str(resume_from)!r}, which has no {FINGERPRINT}; expected a folder of "
                f"resume states, such as {state}. Change or remove the setting."
            )
        if differences:
            raise HyperFormerError(
                f"training.resume_from is {str(resume_from)!r}, an incompatible resume state: {'; '.join(differences)}"
                ". Restore these values, or remove resume_from to train from scratch."
            )
    kept = {state.resolve(), *([resume_from.resolve()] if resume_from else [])}
    for other in states.glob("*"):
        if other.is_dir() and other.resolve() not in kept:
            differences = _differences(other, fingerprint) or ["it is incomplete or not a resume state"]
            log.info("removing the incompatible resume state %s: %s", other, "; ".join(differences[:3]))
            _remove(other)
    if resume_from is not None and resume_from.resolve() != state.resolve():
        copy = state.with_name(f".{state.name}.new")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(resume_from, copy)
        shutil.rmtree(state, ignore_errors=True)
        copy.rename(state)
    state.mkdir(parents=True, exist_ok=True)
    (state / FINGERPRINT).write_text(json.dumps(fingerprint, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return state


@contextmanager
def lock_states(states: Path) -> Iterator[None]:
    """Lock a folder of resume states, so that no other process of this machine can lock it.

    Raises:
        HyperFormerError: if another process has locked the folder.
    """
    states.mkdir(parents=True, exist_ok=True)
    with (states / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HyperFormerError(
                f"another run is using the resume states in {states}; expected one run at a time. Wait for it, stop it "
                "or use another environment."
            ) from None
        yield


def remove_states(states: Path) -> None:
    """Remove the resume states of a pipeline whose results are saved."""
    if states.exists():
        _remove(states)


def _remove(folder: Path) -> None:
    """Rename a folder, then remove it, so that an interrupted removal leaves nothing that another run would resume."""
    renamed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(renamed, ignore_errors=True)
    folder.rename(renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def damaged_file_error(file: Path, error: Exception) -> HyperFormerError:
    """Return the error for a file of a resume state that cannot be read."""
    return HyperFormerError(
        f"the resume state {file.parent} is damaged: {file.name} cannot be read ({error}). Remove that folder to train "
        "from scratch."
    )


def _differences(state: Path, fingerprint: Mapping[str, Any]) -> list[str] | None:
    """Return how a state's fingerprint differs from `fingerprint`, or None if the state has none."""
    try:
        other = dict(json.loads((state / FINGERPRINT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        if not is_damage(error):
            raise
        return None
    current = json.loads(json.dumps(dict(fingerprint)))
    names = sorted(name for name in {*other, *fingerprint} if other.get(name) != current.get(name))
    return [f"{name} is {_shorten(other, name)} in the state and {_shorten(current, name)} now" for name in names]


def _shorten(fingerprint: Mapping[str, Any], name: str) -> str:
    if name not in fingerprint:
        return "not set"
    text = json.dumps(fingerprint[name], ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:12]}…"


def complete_state(state: Path, step: int) -> None:
    """Write the checksums that complete the resume state of a step, then remove the other resume states."""
    new = state / f"{PREFIX}{step}"
    checksums = {name: sha256(new / name) for name in _checked_files(new)}
    write_text(new / CHECKSUMS, json.dumps(checksums, indent=1, sort_keys=True))
    for other in _list_states(state):
        if other != new:
            shutil.rmtree(other)


def _checked_files(folder: Path) -> list[str]:
    """Return the files of a resume state that have checksums.

    These are all files except the checksums file and, if there are several ranks, their random states.
    """
    names = [path.name for path in folder.iterdir()]
    return sorted(name for name in names if name != CHECKSUMS and not name.startswith("rng_state_"))


def _is_complete(folder: Path, ranks: int) -> bool:
    """Return whether the random state of every rank exists, and no file with a checksum has changed."""
    try:
        checksums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        complete = {name: sha256(folder / name) for name in _checked_files(folder)} == checksums
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise
        return False
    return complete and (ranks == 1 or all((folder / f"rng_state_{rank}.pth").exists() for rank in range(ranks)))


def _list_states(state: Path) -> list[Path]:
    """Return the resume states in a folder, by step."""
    folders = [path for path in state.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(folders, key=step_of)


def step_of(folder: Path) -> int:
    """Return the step of a resume state."""
    return int(folder.name.removeprefix(PREFIX))


def find_newest_state(states: Path) -> Path | None:
    """Return the complete resume state that was written last, at any depth of a folder; None if there is none."""
    checksums = [path for path in states.rglob(CHECKSUMS) if path.parent.name.startswith(PREFIX)]
    return max(checksums, key=lambda path: path.stat().st_mtime).parent if checksums else None


def find_last_state(state: Path, ranks: int) -> Path | None:
    """Return the last complete resume state, or None; log later incomplete states."""
    for folder in reversed(_list_states(state)):
        if _is_complete(folder, ranks):
            return folder
        log.info("%s is incomplete and is not used", folder)
    return None
