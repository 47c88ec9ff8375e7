from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import folder_sha256, sha256
from hyperformer.core.manifest import FORMAT, Manifest, read, verify

MANIFEST = Manifest(
    format=FORMAT,
    task="similarity",
    kind="regression",
    text="sentence1: {sentence1} sentence2: {sentence2}",
    missing=None,
    labels=["0", "1", "naïve"],
    numbers=[0.0, 1.0, 2.0],
    max_source_tokens=64,
    opset=18,
    backbone="t5",
    method="hyperformer_plus_plus",
    files={"model.onnx": "ab" * 32},
    int8={},
    openvino={},
    parity={"largest": 1e-6},
    metrics={"pearson": 87.5},
    baselines={"majority": 0.0},
    published=True,
    made_from={"code": "cd" * 32},
)


def write_altered(folder: Path, **changes: object) -> None:
    """Write the manifest with some keys set, or removed where the value is `...`."""
    MANIFEST.write(folder)
    file = folder / "manifest.json"
    fields = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    file.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}), encoding="utf-8")


def test_a_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert read(tmp_path) == MANIFEST


def test_a_manifest_is_readable_json_with_a_final_newline(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    written = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert "naïve" in written
    assert written.endswith("}\n")
    assert json.loads(written)["labels"] == ["0", "1", "naïve"]


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(HyperFormerError, match=r"has no manifest\.json") as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"{broken", b"", b"\xff\xfe\x00"])
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(HyperFormerError, match="not valid JSON"):
        read(tmp_path)


@pytest.mark.parametrize(("number", "got"), [(1, "1"), (4, "4"), ("2", "'2'"), (..., "None")])
def test_a_manifest_of_another_format_is_refused(tmp_path: Path, number: object, got: str) -> None:
    write_altered(tmp_path, format=number)
    with pytest.raises(HyperFormerError, match=f"format {got}, expected {FORMAT}"):
        read(tmp_path)


def test_a_manifest_that_is_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(HyperFormerError, match=f"format 'list', expected {FORMAT}"):
        read(tmp_path)


@pytest.mark.parametrize(("changes", "named"), [({"labels": ...}, "labels"), ({"color": "red"}, "color")])
def test_a_missing_or_unknown_key_is_named(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    write_altered(tmp_path, **changes)
    with pytest.raises(HyperFormerError, match=f"missing or unknown fields: {named};"):
        read(tmp_path)


def test_sha256_is_the_checksum_of_the_bytes(tmp_path: Path) -> None:
    content = b"\x00\x01" * (1 << 20)  # more than one chunk
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert folder_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def write_files(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"one")
    (folder / "deep" / "b.txt").write_bytes(b"two")
    return folder


def test_folder_checksum_depends_on_names_and_bytes_only(tmp_path: Path) -> None:
    assert folder_sha256(write_files(tmp_path / "x")) == folder_sha256(write_files(tmp_path / "y"))


def test_folder_checksum_changes_with_a_byte(tmp_path: Path) -> None:
    before = folder_sha256(write_files(tmp_path / "x"))
    (tmp_path / "x/deep/b.txt").write_bytes(b"twO")
    assert folder_sha256(tmp_path / "x") != before


def test_folder_checksum_changes_with_a_name(tmp_path: Path) -> None:
    before = folder_sha256(write_files(tmp_path / "x"))
    (tmp_path / "x/deep/b.txt").rename(tmp_path / "x/deep/c.txt")
    assert folder_sha256(tmp_path / "x") != before


def test_folder_checksum_changes_when_bytes_move_between_files(tmp_path: Path) -> None:
    before = folder_sha256(write_files(tmp_path / "x"))
    (tmp_path / "x/a.txt").write_bytes(b"onet")
    (tmp_path / "x/deep/b.txt").write_bytes(b"wo")
    assert folder_sha256(tmp_path / "x") != before


def test_folder_checksum_ignores_python_caches(tmp_path: Path) -> None:
    before = folder_sha256(write_files(tmp_path / "x"))
    (tmp_path / "x/deep/__pycache__").mkdir()
    (tmp_path / "x/deep/__pycache__/b.cpython-311.pyc").write_bytes(b"three")
    assert folder_sha256(tmp_path / "x") == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": "good"}, "'labels': str"),
        ({"files": []}, "'files': list"),
        ({"published": 1}, "'published': int"),
        ({"baselines": [50.0]}, "'baselines': list"),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    write_altered(tmp_path, **changes)
    with pytest.raises(HyperFormerError, match=f"invalid type for {named}; export the task again"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_file_outside_of_the_folder_is_refused_unread(tmp_path: Path, name: str) -> None:
    manifest = replace(MANIFEST, files={name: "0" * 64})
    with pytest.raises(HyperFormerError, match="is outside its folder; do not use this bundle"):
        verify(tmp_path, manifest.files)
