"""Damaged rows, tokens, tokenizers and checkpoints are refused with an error that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from encoders import save_backbone
from pyarrow import ipc
from safetensors.torch import load_file
from toys import train_settings

from hyperformer.backbones import load
from hyperformer.core.errors import HyperFormerError
from hyperformer.data.storage import read_first_rows, read_rows, sample_rows, stream_rows
from hyperformer.data.tokens import TOKEN_SCHEMA, read_tokens, write_tokens
from hyperformer.model.checkpoint import CONFIGURATION, WEIGHTS
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.model.tensors import trained_tensors
from hyperformer.settings import BackboneSettings
from hyperformer.training.jobs import build_mixture_job

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "foreign": lambda content: b"something else" * 100,
    "half": lambda content: content[: len(content) // 2],
    "altered": lambda content: content[:300] + bytes(byte ^ 0xFF for byte in content[300:340]) + content[340:],
}
READERS: dict[str, Callable[[Path], object]] = {
    "all": lambda folder: read_rows(folder, "mood", "train"),
    "streamed": lambda folder: list(stream_rows(folder, "mood", "train")),
    "first": lambda folder: read_first_rows(folder, "mood", "train", 3),
    "drawn": lambda folder: sample_rows(folder, "mood", "train", 3, seed=0),
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


def test_an_error_of_the_caller_while_reading_rows_is_unchanged(toy_rows):
    def read() -> None:
        for _ in stream_rows(toy_rows, "mood", "train"):
            raise OSError("of the caller")

    with pytest.raises(OSError, match="of the caller"):
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
        with ipc.new_stream(file, TOKEN_SCHEMA) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays([lists, lists], schema=TOKEN_SCHEMA))
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(HyperFormerError, match=rf"{file} cannot be read \(.+\); expected the file that an earlier st"):
        read_tokens(tmp_path, "mood")


@pytest.mark.parametrize(("column", "token"), [("input_ids", 99_999), ("input_ids", -1), ("labels", 240)])
def test_token_ids_that_the_backbone_does_not_know_are_refused_before_training(tmp_path, make_model, column, token):
    row = {"input_ids": [5, 6, 1], "labels": [7, 1]}
    write_tokens({"mood": [row] * 8, "mood3": [row, {**row, column: [5, token, 1]}]})(tmp_path)
    tokens = {name: (read_tokens(tmp_path, name), 0.5) for name in ("mood", "mood3")}
    model = make_model()
    assert model.backbone.vocab_size == 240
    with pytest.raises(
        HyperFormerError, match=rf"task 'mood3': .* token id {token} in '{column}'; expected .* 0 to 239,"
    ):
        build_mixture_job(model, tokens, train_settings(), 0)
    build_mixture_job(model, {"mood": (tokens["mood"][0], 1.0)}, train_settings(), 0)


@pytest.mark.parametrize("location", ["vocabulary", "special tokens"])
def test_a_tokenizer_with_an_id_outside_the_models_vocabulary_is_refused(tmp_path, texts, location):
    folder = save_backbone(tmp_path, "bert", texts)
    settings = BackboneSettings(path=str(folder), max_source_tokens=32)
    load(settings)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    if location == "vocabulary":
        tokenizer["model"]["vocab"]["film"] = 5000
    else:
        tokenizer["post_processor"]["sep"] = ["[SEP]", 5000]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(
        HyperFormerError, match=r"has 5001 tokens; expected|adds the token id 5000 to a text; expected ids be"
    ):
        load(settings)


# --- checkpoints


@pytest.fixture
def saved(checkpoint: Path, tmp_path: Path) -> Path:
    """Return a copy of the checkpoint that a test can damage."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def test_a_checkpoint_with_other_tensors_than_were_saved_is_refused(saved):
    MultiTaskModel.from_pretrained(saved)
    content = bytearray((saved / WEIGHTS).read_bytes())
    content[-1] ^= 1  # in a number, which safetensors does not notice
    (saved / WEIGHTS).write_bytes(content)
    load_file(saved / WEIGHTS)
    with pytest.raises(HyperFormerError, match=rf"{WEIGHTS} is not the file that was saved with {CONFIGURATION}"):
        MultiTaskModel.from_pretrained(saved)


def remove_checksums(folder: Path, **changes: object) -> Path:
    """Remove the checksums of a checkpoint's configuration, and change other keys."""
    configuration = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    configuration.pop("files")
    (folder / CONFIGURATION).write_text(json.dumps({**configuration, **changes}), encoding="utf-8")
    return folder


def test_a_checkpoint_of_an_earlier_version_is_loaded_without_checksums_and_with_its_names(saved, checkpoint):
    methods = json.loads((saved / CONFIGURATION).read_text(encoding="utf-8"))["methods"]
    (settings,) = methods.values()
    settings["start"] = {"paper": "authors"}[settings.pop("adapter_init")]
    settings["task_embedding"] = settings.pop("task_embedding_dim")
    loaded = trained_tensors(MultiTaskModel.from_pretrained(remove_checksums(saved, methods=methods)))
    expected = trained_tensors(MultiTaskModel.from_pretrained(checkpoint))
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("files", [None, 3, {"other.safetensors": "0" * 64}])
def test_a_checkpoint_with_invalid_checksums_is_damaged(saved, files):
    with pytest.raises(HyperFormerError, match=rf"is damaged \({CONFIGURATION}: "):
        MultiTaskModel.from_pretrained(remove_checksums(saved, files=files))
