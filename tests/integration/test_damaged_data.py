"""Damaged rows, tokens, tokenizers and checkpoints are refused in a sentence that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from encoders import a_folder
from pyarrow import ipc
from safetensors.torch import load_file
from toys import train_settings

from hyperformer.backbones import load
from hyperformer.config import BackboneSettings
from hyperformer.data import TOKENS, drawn_rows, first_rows, read_rows, read_tokens, stream_rows, write_tokens
from hyperformer.model import CONFIGURATION, WEIGHTS, MultiTaskModel, trained_tensors
from hyperformer.training.finetuning import mixed_batches
from hyperformer.types import HyperFormerError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "foreign": lambda content: b"something else" * 100,
    "half": lambda content: content[: len(content) // 2],
    "altered": lambda content: content[:300] + bytes(byte ^ 0xFF for byte in content[300:340]) + content[340:],
}
READERS: dict[str, Callable[[Path], object]] = {
    "all": lambda folder: read_rows(folder, "mood", "train"),
    "streamed": lambda folder: list(stream_rows(folder, "mood", "train")),
    "first": lambda folder: first_rows(folder, "mood", "train", 3),
    "drawn": lambda folder: drawn_rows(folder, "mood", "train", 3, seed=0),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_damaged_rows_are_named(toy_rows, tmp_path, damage, reader):
    folder = shutil.copytree(toy_rows, tmp_path / "rows")
    READERS[reader](folder)
    file = folder / "mood" / "train.parquet"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(HyperFormerError, match=rf"{file} cannot be read \(.+\); expected the file that an earlier st"):
        READERS[reader](folder)


def test_missing_rows_are_named(tmp_path):
    with pytest.raises(HyperFormerError, match=r"train.parquet cannot be read \(.+\); expected the file"):
        list(stream_rows(tmp_path, "mood", "train"))


def test_a_mistake_of_who_reads_rows_stays_what_it_is(toy_rows):
    def read() -> None:
        for _ in stream_rows(toy_rows, "mood", "train"):
            raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        read()


@pytest.mark.parametrize("damage", ["empty", "foreign", "half", "missing", "other columns", "broken lists"])
def test_damaged_tokens_are_named(tmp_path, damage):
    rows = [{"input_ids": [1, 2, 3] * 20, "labels": [1]}] * 40
    write_tokens({"mood": rows})(tmp_path)
    file = tmp_path / "mood.arrow"
    assert len(read_tokens(tmp_path, "mood")) == len(rows)
    if damage == "missing":
        file.unlink()
    elif damage == "other columns":
        batch = pa.RecordBatch.from_pylist([{"ids": 1}])
        with ipc.new_stream(file, batch.schema) as stream:
            stream.write_batch(batch)
    elif damage == "broken lists":
        ends = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 9000, 2)))
        lists = pa.Array.from_buffers(pa.list_(pa.int32()), 2, [None, ends], children=[pa.array([1, 2], pa.int32())])
        with ipc.new_stream(file, TOKENS) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays([lists, lists], schema=TOKENS))
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(HyperFormerError, match=rf"{file} cannot be read \(.+\); expected the file that an earlier st"):
        read_tokens(tmp_path, "mood")


@pytest.mark.parametrize(("column", "odd"), [("input_ids", 99_999), ("input_ids", -1), ("labels", 240)])
def test_token_ids_that_the_backbone_does_not_know_are_refused_before_training(tmp_path, make_model, column, odd):
    row = {"input_ids": [5, 6, 1], "labels": [7, 1]}
    write_tokens({"mood": [row] * 8, "mood3": [row, {**row, column: [5, odd, 1]}]})(tmp_path)
    parts = {name: (read_tokens(tmp_path, name), 0.5) for name in ("mood", "mood3")}
    model = make_model()
    assert model.backbone.vocabulary == 240
    with pytest.raises(
        HyperFormerError, match=rf"task 'mood3': .* token id {odd} in '{column}'; expected .* 0 to 239,"
    ):
        mixed_batches(model, parts, train_settings(), 0)
    mixed_batches(model, {"mood": (parts["mood"][0], 1.0)}, train_settings(), 0)


@pytest.mark.parametrize("where", ["vocabulary", "marks"])
def test_a_tokenizer_with_an_id_beyond_the_models_is_refused_however_few_it_has(tmp_path, texts, where):
    folder = a_folder(tmp_path, "bert", texts)
    settings = BackboneSettings(path=str(folder), max_source_tokens=32)
    load(settings)
    file = folder / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    if where == "vocabulary":
        described["model"]["vocab"]["film"] = 5000
    else:
        described["post_processor"]["sep"] = ["[SEP]", 5000]
    file.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(
        HyperFormerError, match=r"has 5001 tokens; expected|adds the token id 5000 to a text; expected ids be"
    ):
        load(settings)


# --- checkpoints


@pytest.fixture
def saved(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def test_a_checkpoint_with_other_tensors_than_were_saved_is_refused(saved):
    MultiTaskModel.from_pretrained(saved)
    content = bytearray((saved / WEIGHTS).read_bytes())
    content[-1] ^= 1  # of a number: safetensors sees nothing
    (saved / WEIGHTS).write_bytes(content)
    load_file(saved / WEIGHTS)
    with pytest.raises(HyperFormerError, match=rf"{WEIGHTS} is not the file that was saved with {CONFIGURATION}"):
        MultiTaskModel.from_pretrained(saved)


def without_checksums(folder: Path, **changes: object) -> Path:
    configuration = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    configuration.pop("files")
    (folder / CONFIGURATION).write_text(json.dumps({**configuration, **changes}), encoding="utf-8")
    return folder


def test_a_checkpoint_of_an_earlier_version_is_loaded_without_a_checksum_and_by_its_names(saved, checkpoint):
    methods = json.loads((saved / CONFIGURATION).read_text(encoding="utf-8"))["methods"]
    (settings,) = methods.values()
    settings["start"] = {"paper": "authors"}[settings.pop("adapter_init")]
    settings["task_embedding"] = settings.pop("task_embedding_dim")
    loaded = trained_tensors(MultiTaskModel.from_pretrained(without_checksums(saved, methods=methods)))
    wanted = trained_tensors(MultiTaskModel.from_pretrained(checkpoint))
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("files", [None, 3, {"other.safetensors": "0" * 64}])
def test_a_checkpoint_whose_checksums_are_none_is_damaged(saved, files):
    with pytest.raises(HyperFormerError, match=rf"is damaged \({CONFIGURATION}: "):
        MultiTaskModel.from_pretrained(without_checksums(saved, files=files))
