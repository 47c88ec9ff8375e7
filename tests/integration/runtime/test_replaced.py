"""Bundles that are replaced while they are loaded: only verified bytes answer."""

from __future__ import annotations

import io
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from hyperformer.cli import main
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import GRAPH, TOKENIZER
from hyperformer.runtime import Bundle, bundle, load, sessions
from hyperformer.serving.string_graph import writer
from hyperformer.serving.triton import write_repository

ROW = {"sentence": "the film is dull"}
CONSTANTS = f"{GRAPH}.data"
VALUES = np.log(np.array([0.25, 0.75], dtype=np.float32))


def write_listed(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a bundle, and list its checksum in the manifest."""
    (folder / name).write_bytes(content)
    description = json.loads((folder / manifest.MANIFEST).read_text())
    description["files"][name] = sha256(folder / name)
    (folder / manifest.MANIFEST).write_text(json.dumps(description))


def make_graph(location: str, pad: int = 0) -> bytes:
    """Make a classifier graph with the same scores for every row, from an external file, and `pad` more bytes."""
    scores = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "8"}.items():
        scores.external_data.add(key=key, value=value)
    rest = numpy_helper.from_array(np.zeros(max(pad, 1), dtype=np.uint8), "pad")
    zero, two = (numpy_helper.from_array(np.array([n], dtype=np.int64), f"n{n}") for n in (0, 2))
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "n0"], ["rows"]),
        helper.make_node("Concat", ["rows", "n2"], ["size"], axis=0),
        helper.make_node("Expand", ["w", "size"], ["scores"]),
        helper.make_node("Identity", ["pad"], ["padding"]),
    ]
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "l"]) for n in ("input_ids", "attention_mask")]
    outs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", 2]),
        helper.make_tensor_value_info("padding", TensorProto.UINT8, [max(pad, 1)]),
    ]
    graph = helper.make_graph(nodes, "g", ids, outs, [scores, rest, zero, two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    """Copy a bundle, which a test may damage."""
    return shutil.copytree(bundles / "mood", tmp_path / "mood")


@pytest.fixture
def large(copied: Path) -> Path:
    """Make a bundle whose graph has external constants."""
    write_listed(copied, GRAPH, make_graph(CONSTANTS))
    write_listed(copied, CONSTANTS, VALUES.tobytes())
    return copied


class Swap:
    """Swaps two bundles with different answers before every `every`-th opening of a file, graph or tokenizer."""

    def __init__(self, path: Path, other: Path, exchange: Callable[[Path, Path], None]) -> None:
        self.path, self.other, self._exchange = path, other, exchange
        self.every = self.opens = self.swaps = 0

    def __call__(self) -> None:
        self.opens += 1
        if self.every and self.opens % self.every == 0:
            self._exchange(self.path, self.other)
            self.swaps += 1


def swap_by_rename(path: Path, other: Path) -> None:
    path.rename(path.with_name("aside"))
    other.rename(path)
    path.with_name("aside").rename(other)


def swap_by_symlink(path: Path, other: Path) -> None:
    targets = [link.readlink() for link in (path, other)]
    for link, target in zip((path, other), reversed(targets), strict=True):
        new = link.with_name(f"{link.name}.new")
        new.symlink_to(target)
        new.replace(link)


def hook_swap(swap: Swap, patch: pytest.MonkeyPatch) -> None:
    """Call a swap before Python opens a file, and before a library opens a graph or tokenizer."""

    def swap_before(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **more: Any) -> Any:
            swap()
            return original(*arguments, **more)

        return run

    class Opener:
        from_buffer = staticmethod(swap_before(Tokenizer.from_buffer))
        from_file = staticmethod(swap_before(Tokenizer.from_file))

    patch.setattr(io, "open", swap_before(io.open))  # pathlib uses it
    patch.setattr(sessions.onnxruntime, "InferenceSession", swap_before(sessions.onnxruntime.InferenceSession))
    patch.setattr(bundle, "Tokenizer", Opener)


@pytest.fixture(params=[swap_by_rename, swap_by_symlink])
def swap(request: pytest.FixtureRequest, bundles: Path, tmp_path: Path) -> Swap:
    for name, scores in (("first", VALUES), ("second", VALUES[::-1].copy())):
        folder = shutil.copytree(bundles / "mood", tmp_path / name)
        write_listed(folder, GRAPH, make_graph(CONSTANTS))
        write_listed(folder, CONSTANTS, scores.tobytes())
    if request.param is swap_by_rename:
        return Swap(tmp_path / "first", tmp_path / "second", swap_by_rename)
    for link, name in (("mood", "first"), ("other", "second")):
        (tmp_path / link).symlink_to(tmp_path / name)
    return Swap(tmp_path / "mood", tmp_path / "other", swap_by_symlink)


def test_a_bundle_that_is_replaced_while_it_is_loaded_is_one_of_both_or_is_refused(swap, monkeypatch):
    labels = {manifest.read(path).files[CONSTANTS]: load(path)(ROW).label for path in (swap.path, swap.other)}
    assert sorted(labels.values()) == ["negative", "positive"]
    hook_swap(swap, monkeypatch)
    answers, refusals = [], []
    for swap.every in (*range(1, 13), *range(1, 13)):  # loading a bundle opens eight files
        swap.opens = 0
        try:
            loaded = load(swap.path)
        except HyperFormerError as error:
            refusals.append(str(error))
        else:
            answers.append((loaded(ROW).label, labels[loaded.manifest.files[CONSTANTS]]))
    assert swap.swaps >= 50
    assert len(answers) > 4
    assert all(label == wanted for label, wanted in answers)
    assert all("is not the file that was exported" in refusal for refusal in refusals)


def test_a_bundle_that_is_replaced_once_is_loaded(swap, monkeypatch):
    hook_swap(swap, monkeypatch)
    for swap.every in range(1, 12):
        swap.opens = swap.swaps = 0
        exchange = swap._exchange
        swap._exchange = lambda *paths, exchange=exchange: exchange(*paths) if not swap.swaps else None
        assert load(swap.path)(ROW).label in ("negative", "positive")
        swap._exchange = exchange


def test_a_bundle_that_is_missing_for_a_moment_is_loaded(copied, monkeypatch):
    original, away = manifest.read, copied.with_name("away")

    def read(folder: Path) -> manifest.Manifest:
        if copied.exists():
            copied.rename(away)
            try:
                return original(folder)
            finally:
                away.rename(copied)
                monkeypatch.setattr(manifest, "read", original)
        return original(folder)

    monkeypatch.setattr(manifest, "read", read)
    assert load(copied)(ROW).label


def test_a_base_and_an_adapter_use_the_verified_bytes(shared_base, tmp_path, monkeypatch):
    root = shutil.copytree(shared_base, tmp_path / "shared")
    wanted = load(root)["mood"](ROW)
    original = manifest.verify

    def verify(folder: Path, listed: Any, wanted: Any = ()) -> Any:
        contents = original(folder, listed, wanted)
        for name in listed:
            (folder / name).write_bytes(b"something else")
        return contents

    monkeypatch.setattr(manifest, "verify", verify)
    assert load(root)["mood"](ROW) == wanted


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_a_triton_model_has_the_verified_bytes(bundles, tmp_path, monkeypatch, name):
    root = shutil.copytree(bundles / "mood", tmp_path / "mood")
    original = manifest.verify

    def verify(*arguments: Any) -> Any:
        contents = original(*arguments)
        (root / name).write_bytes(b"something else")
        return contents

    monkeypatch.setattr(manifest, "verify", verify)
    with pytest.raises(HyperFormerError, match=f"{name} was replaced while it was copied. Run again"):
        write_repository([root], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_string_graph_has_the_bytes_of_the_bundle_that_it_is_compared_with(bundles, tmp_path, monkeypatch):
    root = shutil.copytree(bundles / "mood", tmp_path / "mood")

    def load_and_replace(*arguments: Any, **more: Any) -> Any:
        loaded = Bundle(*arguments, **more)
        write_listed(root, GRAPH, make_graph(CONSTANTS))
        return loaded

    monkeypatch.setattr(writer, "Bundle", load_and_replace)
    with pytest.raises(HyperFormerError, match=r"mood was replaced while it was read\. Run again"):
        writer.write_string_graph(root, tmp_path / "mood.onnx")


def test_a_bundle_that_is_removed_while_it_is_inspected_lacks_its_files(copied, monkeypatch, capsys):
    original = manifest.read

    def read(folder: Path) -> manifest.Manifest:
        description = original(folder)
        shutil.rmtree(folder)
        return description

    monkeypatch.setattr(manifest, "read", read)
    assert main(["inspect", str(copied)]) == 0
    assert f"missing       {manifest.MODEL_CARD}, " in capsys.readouterr().out


# --- external constants


def test_constants_in_a_listed_file_are_read_from_the_verified_bytes(large, monkeypatch):
    assert load(large)(ROW).probabilities == pytest.approx({"negative": 0.25, "positive": 0.75})
    original = manifest.verify

    def verify(*arguments: Any) -> Any:
        contents = original(*arguments)
        (large / CONSTANTS).write_bytes(VALUES[::-1].tobytes())
        return contents

    monkeypatch.setattr(manifest, "verify", verify)
    assert load(large)(ROW).probabilities == pytest.approx({"negative": 0.25, "positive": 0.75})


@pytest.mark.parametrize("listed", [(), (CONSTANTS,)], ids=["no listed file", "a listed file"])
@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "deep/weights.bin", "../mood/weights.bin"])
def test_constants_in_a_file_that_is_not_listed_are_refused(copied, monkeypatch, location, listed):
    """In the bundle's folder, and in the working directory."""
    write_listed(copied, GRAPH, make_graph(location))
    for name in listed:
        write_listed(copied, name, VALUES.tobytes())
    (copied / "deep").mkdir()
    for name in ("weights.bin", "deep/weights.bin"):
        (copied / name).write_bytes(VALUES.tobytes())
    monkeypatch.chdir(copied)
    with pytest.raises(HyperFormerError, match=r"model.onnx cannot be opened \(.*weights.bin"):
        load(copied)


def test_constants_that_are_listed_and_missing_are_named(large):
    (large / CONSTANTS).unlink()
    with pytest.raises(HyperFormerError, match=f"has no {CONSTANTS}; copy the whole folder"):
        load(large)


def test_the_bytes_of_a_graph_do_not_stay_in_memory(copied):
    size = 8_000_000
    write_listed(copied, GRAPH, make_graph(CONSTANTS, size))
    write_listed(copied, CONSTANTS, VALUES.tobytes())
    tracemalloc.start()
    try:
        loaded = load(copied)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert loaded(ROW).label == "positive"
    assert kept < size / 2
    assert peak < 1.5 * size
