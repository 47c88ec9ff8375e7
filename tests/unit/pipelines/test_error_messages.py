"""Errors of the system are reported with their cause, and are not called damage."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import report_damage
from hyperformer.training.states import find_last_state
from pipelines.datasets import JSONDataset
from pipelines.hooks.error_messages import short_message

PATH = "Check the path, its permissions and free disk space, then run again"


def message(error: Exception) -> str:
    with pytest.raises(click.ClickException) as short, short_message():
        raise error
    return short.value.message


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, PATH),
        (errno.EACCES, PATH),
        (errno.EROFS, PATH),
        (errno.EIO, PATH),
        (errno.ECONNREFUSED, "Check the network and the address, then run again"),
        (errno.ENETUNREACH, "Check the network and the address, then run again"),
        (errno.EMFILE, "Raise the limit of open files (ulimit -n), then run again"),
        (errno.EADDRINUSE, "Use another address or port, then run again"),
        (errno.ENOMEM, "Free memory, then run again"),
    ],
)
def test_the_advice_fits_the_error_of_the_system(number, advice):
    error = OSError(number, os.strerror(number), "place")
    assert message(error) == f"place: {os.strerror(number)}. {advice}; finished stages are kept."


def test_a_network_error_without_a_number_is_not_about_a_path():
    assert message(ConnectionError("cannot reach x\nmore")).startswith("cannot reach x. Check the network and the")


def test_an_error_of_the_system_in_reading_an_artifact_is_not_called_damage(tmp_path):
    for number in (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOSPC):
        with pytest.raises(OSError, match=os.strerror(number)), report_damage(tmp_path / "file"):
            raise OSError(number, os.strerror(number))


def test_a_message_for_the_command_line_is_kept():
    assert message(click.UsageError("as it is")) == "as it is"


def test_an_unknown_error_keeps_its_traceback():
    with pytest.raises(KeyError), short_message():
        raise KeyError("x")


def garbage(file: Path) -> None:
    file.write_bytes(b"\xff\x00{")


def truncated(file: Path) -> None:
    file.write_text(json.dumps([1, 2, 3])[:4])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def folder(file: Path) -> None:
    file.mkdir()


def missing(file: Path) -> None:
    pass


DAMAGES = [garbage, truncated, empty, folder, missing]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path, damage):
    file = tmp_path / "metrics.json"
    damage(file)
    dataset = JSONDataset(filepath=str(file))
    with pytest.raises(click.ClickException) as short, short_message():
        dataset.load()
    assert short.value.message.startswith(f"{file} cannot be read (")
    assert short.value.message.endswith("Remove it, then run that stage again.")
    assert "\n" not in short.value.message


def make_state(states: Path) -> Path:
    state = states / "checkpoint-4"
    state.mkdir(parents=True)
    (state / "seal.json").write_text("{}")
    return state


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_resume_state_is_not_used(tmp_path, damage):
    checksums = make_state(tmp_path) / "seal.json"
    assert find_last_state(tmp_path, 1) == checksums.parent
    checksums.unlink()
    damage(checksums)
    assert find_last_state(tmp_path, 1) is None


def test_a_resume_state_that_may_not_be_read_is_not_thrown_away(tmp_path, monkeypatch):
    make_state(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "seal.json")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(click.ClickException, match=r"seal\.json: Permission denied"), short_message():
        find_last_state(tmp_path, 1)


def test_a_damaged_file_names_what_it_has(tmp_path):
    pattern = r"file cannot be read \(it has no column 'x'\); expected"
    with pytest.raises(HyperFormerError, match=pattern), report_damage(tmp_path / "file"):
        raise ValueError("it has no column 'x'")
