from __future__ import annotations

import gc
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, IterableDataset
from pyarrow import parquet
from pydantic import ValidationError

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.rng import make_rng
from hyperformer.data.sources import check_sources
from hyperformer.data.splits import prepare
from hyperformer.data.storage import (
    collect_rows,
    read_first_rows,
    read_rows,
    stream_rows,
    stream_training_texts,
    write_rows,
)
from hyperformer.data.tokens import read_tokens, write_tokens
from hyperformer.settings import DataSettings, SplitSettings, Tasks
from hyperformer.tasks import Task, make_tasks

Row = dict[str, Any]

# The readers of `datasets` leave files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def no_open_files_for_later_tests() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def separate_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache of `datasets` out of the user's home, and temporary files in a folder of the test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets cache")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


def make_task(**changes: Any) -> dict[str, Task]:
    settings = {
        "text": "{a} {b}",
        "kind": "classification",
        "label_column": "label",
        "labels": {0: "no", 1: "yes"},
        "metrics": ["accuracy"],
        **changes,
    }
    return make_tasks(Tasks.model_validate({"t": settings}))


def make_rows(start: int, count: int) -> list[Row]:
    return [{"a": f"word{i}", "b": f"and, {i}", "label": str(i % 2)} for i in range(start, start + count)]


def write_csv(file: Path, rows: list[Row]) -> None:
    names = list(rows[0]) if rows else ["a", "b", "label"]
    quoted = [
        ",".join(f'"{row[name]}"' if isinstance(row[name], str) else str(row[name]) for name in names) for row in rows
    ]
    file.write_text("\n".join([",".join(names), *quoted]) + "\n", encoding="utf-8")


def write_jsonl(file: Path, rows: list[Row]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(file: Path, rows: list[Row]) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), file)


WRITERS: dict[str, Callable[[Path, list[Row]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def write_folder(folder: Path, suffix: str = "jsonl", **splits: list[Row]) -> DataSettings:
    """Write a folder of rows, with defaults for the splits that are not passed, and return its settings."""
    defaults = {"train": make_rows(0, 10), "validation": make_rows(10, 4), "test": make_rows(20, 4)}
    folder.mkdir(exist_ok=True)
    for split, rows in {**defaults, **splits}.items():
        WRITERS[suffix](folder / f"{split}.{suffix}", rows)
    return DataSettings(source=str(folder))


def prepare_task(data: DataSettings, seed: int = 0, **settings: Any) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    rows, counts = prepare(make_task(**settings), data, Path("unused"), seed)
    return {split: list(stored) for split, stored in rows["t"].items()}, counts["t"]


def error_of(data: DataSettings, **settings: Any) -> str:
    with pytest.raises(HyperFormerError) as caught:
        prepare(make_task(**settings), data, Path("unused"), 0)
    return str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_of_a_folder_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    splits, counts = prepare_task(write_folder(tmp_path / "rows", suffix))
    assert list(splits) == ["train", "validation", "test"]
    expected = {"train": make_rows(0, 10), "validation": make_rows(10, 4), "test": make_rows(20, 4)}
    assert splits == expected
    assert counts == {split: {"rows": len(rows), "removed": 0} for split, rows in splits.items()}


def test_columns_that_the_task_does_not_use_are_left_out(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", train=[{**row, "idx": i} for i, row in enumerate(make_rows(0, 10))])
    assert list(prepare_task(source)[0]["train"][0]) == ["a", "b", "label"]


def test_a_task_may_name_its_own_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine")
    splits, _ = prepare_task(DataSettings(source="embedded"), source={"path": str(tmp_path), "name": "mine"})
    assert splits["train"] == make_rows(0, 10)


def test_embedded_rows_are_read_from_their_folder_under_the_task_s_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "t")
    rows, _ = prepare(make_task(), DataSettings(source="embedded"), tmp_path, 0)
    assert list(rows["t"]["test"]) == make_rows(20, 4)


def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows")
    (tmp_path / "rows/validation.jsonl").rename(tmp_path / "rows/dev.jsonl")
    message = error_of(source)
    assert (
        "has dev.jsonl, test.jsonl, train.jsonl; expected one file validation.csv, .tsv, .jsonl or .parquet" in message
    )
    assert message.startswith("task 't': the folder ")


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows")
    write_csv(tmp_path / "rows/train.csv", make_rows(0, 3))
    assert "has train.csv, train.jsonl; expected one file train.csv, .tsv, .jsonl or .parquet" in error_of(source)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "nowhere does not exist; expected one file train.csv" in error_of(
        DataSettings(source=str(tmp_path / "nowhere"))
    )


def test_a_misspelt_folder_above_is_answered_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "questions")
    (tmp_path / "rows").mkdir()
    write_folder(tmp_path / "rows/x")
    message = error_of(DataSettings(source=str(tmp_path / "row/x")))
    assert message == f"task 't': no folder '{tmp_path}/row/x'; did you mean '{tmp_path}/rows/x'?"


def test_a_file_of_a_hub_is_to_be_renamed(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "parquet")
    (tmp_path / "rows/train.parquet").rename(tmp_path / "rows/train-00000-of-00001.parquet")
    assert "Rename train-00000-of-00001.parquet to train.parquet. Or set" in error_of(source)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "parquet")
    (tmp_path / "rows/train.parquet").unlink()
    (tmp_path / "rows/train.parquet").mkdir()
    assert "rows/train.parquet is a folder or a broken link; expected a file of rows" in error_of(source)


def test_a_suffix_may_be_in_upper_case(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "csv")
    (tmp_path / "rows/train.csv").rename(tmp_path / "rows/train.CSV")
    assert len(prepare_task(source)[0]["train"]) == 10


def test_rows_that_are_all_dropped_are_an_error(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", train=[{"a": None, "b": "x", "label": "0"}] * 3)
    message = error_of(source, missing="drop")
    assert "a value of 'a' or 'b' or 'label' is null or missing in each of the 3 rows" in message


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", train=[*make_rows(0, 3), {"a": "x", "label": "0"}])
    _, counts = prepare_task(source, missing="drop")
    assert counts["train"] == {"rows": 3, "removed": 0, "dropped": 1}


def test_a_misspelt_folder_is_answered_with_its_sibling_and_not_looked_up_on_a_hub(tmp_path: Path) -> None:
    write_folder(tmp_path / "questions")
    message = error_of(DataSettings(source=str(tmp_path / "question")))
    assert message == f"task 't': no folder '{tmp_path}/question'; did you mean '{tmp_path}/questions'?"


def test_a_file_is_no_source(tmp_path: Path) -> None:
    write_folder(tmp_path / "rows")
    message = error_of(DataSettings(source=str(tmp_path / "rows/train.jsonl")))
    assert "is a file; expected a folder with a file for each split, such as train.csv" in message
    assert message.endswith(f"Rename it so, and use '{tmp_path}/rows'.")


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", test=[{"a": "x", "c": "y", "label": "0"}])
    assert re.search(
        r"task 't': .*test\.jsonl, line 1: the row has no 'b'; its columns are 'a', 'c', 'label'\.", error_of(source)
    )


@pytest.mark.parametrize(
    ("suffix", "content"), [("csv", "a,b,label\n"), ("csv", ""), ("parquet", ""), ("jsonl", "{bad\n")]
)
def test_a_file_without_readable_rows_is_named(tmp_path: Path, suffix: str, content: str) -> None:
    source = write_folder(tmp_path / "rows", suffix)
    (tmp_path / f"rows/train.{suffix}").write_text(content)
    message = error_of(source)
    assert message.startswith("task 't': ")
    assert f"train.{suffix}" in message


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "csv")
    file = tmp_path / "rows/test.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(prepare_task(source)[0]["test"]) == 4


def test_a_file_with_nothing_but_its_header_holds_no_rows(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "csv")
    (tmp_path / "rows/test.csv").write_text("a,b,label\n")
    assert re.search(r"task 't': .*test\.csv has no rows; expected at least one", error_of(source))


def test_a_parquet_file_with_columns_and_no_rows_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "parquet")
    parquet.write_table(pa.Table.from_pylist(make_rows(0, 2))[:0], tmp_path / "rows/test.parquet")
    message = error_of(source)
    assert "test.parquet" in message
    assert "rows" in message


def test_a_bad_label_is_named_with_task_file_row_and_value(tmp_path: Path) -> None:
    rows = make_rows(0, 10)
    rows[6]["label"] = "7"
    message = error_of(write_folder(tmp_path / "rows", "csv", train=rows))
    assert re.search(
        r"task 't': .*train\.csv has unknown labels in column 'label': '7' \(1 row, first at line 8\); expected one",
        message,
    )


def test_a_row_without_a_text_is_named(tmp_path: Path) -> None:
    rows = make_rows(0, 10)
    rows[2]["b"] = None
    assert re.search(
        r"train\.jsonl, line 3: 'b' is null; expected a text\. Fill it, or set the task's `missing`",
        error_of(write_folder(tmp_path / "rows", train=rows)),
    )


def test_the_number_of_a_bad_row_counts_from_the_file_s_beginning(tmp_path: Path) -> None:
    rows = make_rows(0, 2500)
    rows[2344]["label"] = "7"
    assert "'7' (1 row, first at row 2345)" in error_of(write_folder(tmp_path / "rows", "parquet", train=rows))


def test_a_parquet_file_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", "parquet", train=make_rows(0, 2500))
    file = tmp_path / "rows/train.parquet"
    content = bytearray(file.read_bytes())
    content[200:4000] = bytes(3800)
    file.write_bytes(content)
    assert re.search(r"task 't': .*train\.parquet is damaged after row \d+ \(.+\)\. Copy it again", error_of(source))


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_source_may_be_limited_to_the_first_rows_of_each_split(tmp_path: Path, suffix: str) -> None:
    train = make_rows(0, 10)
    train[6]["label"] = "7"  # not looked at
    splits, counts = prepare_task(write_folder(tmp_path / "rows", suffix, train=train), source={"rows": 5})
    assert {split: [row["a"] for row in rows] for split, rows in splits.items()} == {
        "train": [f"word{i}" for i in range(5)],
        "validation": [f"word{i}" for i in range(10, 14)],  # there are no more
        "test": [f"word{i}" for i in range(20, 24)],
    }
    assert counts["train"] == {"rows": 5, "removed": 0}


@pytest.mark.parametrize("rows", [3, 1500])
def test_first_rows_of_a_hub_are_streamed_and_their_copy_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    fetched: list[int] = []
    requests: list[Any] = []

    def hub(start: int) -> Iterator[Row]:
        for row in make_rows(start, 100_000):
            fetched.append(start)
            yield row

    def load_dataset(*names: Any, **options: Any) -> IterableDataset:
        requests.append((names, options))
        starts = {"train": 0, "validation": 100_000, "test": 200_000}
        return IterableDataset.from_generator(hub, gen_kwargs={"start": starts[options["split"]]})

    monkeypatch.setattr("hyperformer.data.hub.load_dataset", load_dataset)
    source = {"path": "org/name", "name": "part", "revision": "abc", "rows": rows}
    rows_by_task, _ = prepare(make_task(source=source), DataSettings(source="embedded"), Path("unused"), 0)
    assert list(rows_by_task["t"]["train"]) == make_rows(0, rows)
    assert list(rows_by_task["t"]["test"]) == make_rows(200_000, rows)
    assert requests[0] == (("org/name", "part"), {"split": "train", "streaming": True, "revision": "abc"})
    expected = -(-rows // 1000) * 1000 if rows > 1000 else rows  # whole batches
    assert [fetched.count(start) for start in (0, 100_000, 200_000)] == [expected] * 3

    assert list((tmp_path / "temporary").glob("*.arrow"))
    del rows_by_task
    gc.collect()
    assert not list((tmp_path / "temporary").glob("*.arrow"))


def test_a_stream_that_breaks_off_is_an_error_and_its_copy_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hub() -> Iterator[Row]:
        yield from make_rows(0, 1200)  # more than one batch
        raise ConnectionError("the line is dead")

    monkeypatch.setattr("hyperformer.data.hub.load_dataset", lambda *_, **__: IterableDataset.from_generator(hub))
    message = error_of(DataSettings(source="org/name"), source={"rows": 2000})
    assert "task 't': cannot load split 'train' of 'org/name', configuration default (" in message
    assert "the line is dead" in message
    assert not list((tmp_path / "temporary").glob("*.arrow"))


def key(row: Row) -> tuple[str, str]:
    return row["a"], row["b"]


def test_a_halved_split_gives_two_disjoint_halves_that_cover_it(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", validation=make_rows(100, 41))
    splits, _ = prepare_task(source, splits={"test": "halve_validation"})
    validation, test = {key(row) for row in splits["validation"]}, {key(row) for row in splits["test"]}
    assert (len(validation), len(test)) == (20, 21)
    assert validation | test == {key(row) for row in make_rows(100, 41)}


def test_halves_depend_on_the_seed_alone(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", validation=make_rows(100, 41))
    policy = {"splits": {"test": "halve_validation"}}
    assert prepare_task(source, 1, **policy) == prepare_task(source, 1, **policy)
    assert prepare_task(source, 1, **policy)[0]["test"] != prepare_task(source, 2, **policy)[0]["test"]


def test_the_test_split_may_be_the_one_that_is_halved(tmp_path: Path) -> None:
    splits, _ = prepare_task(
        write_folder(tmp_path / "rows", test=make_rows(100, 10)), splits={"validation": "halve_test"}
    )
    assert sorted(key(row) for row in splits["validation"] + splits["test"]) == sorted(
        key(r) for r in make_rows(100, 10)
    )


def test_held_out_rows_leave_train(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", train=make_rows(0, 50))
    splits, _ = prepare_task(source, splits={"validation": "hold_out_7", "test": "hold_out_12"})
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 31, "validation": 7, "test": 12}
    assert sorted(key(row) for rows in splits.values() for row in rows) == sorted(key(row) for row in make_rows(0, 50))


def test_held_out_rows_depend_on_the_seed_alone(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows", train=make_rows(0, 50))
    policy = {"splits": {"validation": "hold_out_10"}}
    assert prepare_task(source, 1, **policy) == prepare_task(source, 1, **policy)
    assert prepare_task(source, 1, **policy)[0]["validation"] != prepare_task(source, 2, **policy)[0]["validation"]


def test_the_rows_of_a_seed_are_always_the_same(tmp_path: Path) -> None:
    held, _ = prepare_task(
        write_folder(tmp_path / "rows", train=make_rows(0, 50)),
        seed=3,
        splits={"validation": "hold_out_4", "test": "hold_out_5"},
    )
    assert {split: [row["a"] for row in held[split]] for split in ("validation", "test")} == {
        "validation": ["word6", "word19", "word27", "word32"],
        "test": ["word9", "word14", "word16", "word37", "word42"],
    }
    halves, _ = prepare_task(
        write_folder(tmp_path / "rows", validation=make_rows(60, 9)), seed=3, splits={"test": "halve_validation"}
    )
    assert {split: [row["a"] for row in halves[split]] for split in ("validation", "test")} == {
        "validation": ["word61", "word62", "word64", "word68"],
        "test": ["word60", "word63", "word65", "word66", "word67"],
    }


def test_holding_out_all_of_train_is_refused(tmp_path: Path) -> None:
    message = error_of(write_folder(tmp_path / "rows"), splits={"test": "hold_out_10"})
    assert "hold_out_10 hold out 10 of the 10 training rows" in message
    splits = {"validation": "hold_out_4", "test": "hold_out_8"}
    message = error_of(write_folder(tmp_path / "rows"), splits=splits)
    assert "hold_out_4 and hold_out_8 hold out 12 of the 10 training rows; expected some to remain" in message


def test_stratified_splits_have_every_label_in_its_share(tmp_path: Path) -> None:
    rows = [{**row, "label": int(index % 10 == 0)} for index, row in enumerate(make_rows(0, 70))]  # 7 of 70 are 1
    source = write_folder(tmp_path / "rows", train=rows)
    policy = {"splits": {"validation": "stratified_15", "test": "stratified_20"}}
    splits, _ = prepare_task(source, 1, **policy)
    counts = {split: Counter(str(row["label"]) for row in rows) for split, rows in splits.items()}
    # of 15 rows, 13.5 and 1.5: equal remainders go to the first label; of 20 of the other 55 rows, 17.8 and 2.2
    assert counts == {
        "train": {"0": 31, "1": 4}, "validation": {"0": 14, "1": 1}, "test": {"0": 18, "1": 2},
    }  # fmt: skip
    assert sorted(key(row) for rows in splits.values() for row in rows) == sorted(key(row) for row in make_rows(0, 70))
    assert prepare_task(source, 1, **policy)[0] == splits
    assert prepare_task(source, 2, **policy)[0]["validation"] != splits["validation"]


def test_only_classes_can_be_stratified(tmp_path: Path) -> None:
    regression = {"kind": "regression", "minimum": 0, "maximum": 5, "step": 1, "metrics": ["pearson"]}
    with pytest.raises(ValidationError, match=r"no classes to stratify, but `splits` has stratified_4; use hold_out_4"):
        Tasks.model_validate(
            {"t": {"text": "{a}", "label_column": "label", **regression, "splits": {"test": "stratified_4"}}}
        )
    with pytest.raises(ValidationError, match="train is 'stratified_4'; expected the name of a split"):
        SplitSettings(train="stratified_4")


def test_rows_that_are_also_in_a_later_split_are_removed_and_counted(tmp_path: Path) -> None:
    source = write_folder(
        tmp_path / "rows",
        train=make_rows(0, 10)
        + make_rows(10, 2)
        + [{**make_rows(20, 1)[0], "label": "1"}],  # the last with another label
        validation=make_rows(10, 4) + make_rows(21, 1),
    )
    splits, counts = prepare_task(source)
    expected = {"train": make_rows(0, 10), "validation": make_rows(10, 4), "test": make_rows(20, 4)}
    assert splits == expected
    assert {split: count["removed"] for split, count in counts.items()} == {"train": 3, "validation": 1, "test": 0}
    assert {split: count["rows"] for split, count in counts.items()} == {"train": 10, "validation": 4, "test": 4}


def test_rows_that_share_one_of_two_texts_are_kept(tmp_path: Path) -> None:
    row = {"a": "word20", "b": "another", "label": "0"}
    assert row in prepare_task(write_folder(tmp_path / "rows", train=[*make_rows(0, 3), row]))[0]["train"]


def test_different_texts_are_distinguished_whatever_they_contain(tmp_path: Path) -> None:
    test = [
        {"a": "x', 'y", "b": "z", "label": "0"},
        {"a": "1", "b": "", "label": "0"},
        {"a": "ü\n", "b": "q", "label": "0"},
    ]
    train = [{"a": "x", "b": "y', 'z", "label": "0"}, {"a": "", "b": "1", "label": "0"}]
    splits, counts = prepare_task(write_folder(tmp_path / "rows", train=[*train, test[2]], test=test))
    assert splits["train"] == train
    assert counts["train"]["removed"] == 1


def test_numbers_become_texts(tmp_path: Path) -> None:
    test = [{"a": 1, "b": 0.5, "label": "0"}, {"a": 2, "b": 0.5, "label": "0"}]
    other = {"a": 1, "b": 1.5, "label": "0"}
    source = write_folder(tmp_path / "rows", train=[test[1], other], validation=[test[0], {**other, "a": 4}], test=test)
    splits, _ = prepare_task(source)
    assert splits == {
        "train": [{"a": "1", "b": "1.5", "label": "0"}],
        "validation": [{"a": "4", "b": "1.5", "label": "0"}],
        "test": [{"a": "1", "b": "0.5", "label": "0"}, {"a": "2", "b": "0.5", "label": "0"}],
    }


def test_a_split_that_a_later_one_contains_is_refused(tmp_path: Path) -> None:
    message = error_of(write_folder(tmp_path / "rows", validation=make_rows(20, 3)))
    assert "task 't': every row of validation is also in a later split" in message


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    rows, _ = prepare(make_task(), write_folder(tmp_path / "source"), Path("unused"), 0)
    write_rows(rows)(tmp_path / "rows")
    assert read_rows(tmp_path / "rows", "t", "train").to_list() == make_rows(0, 10)
    assert parquet.read_schema(tmp_path / "rows/t/train.parquet").metadata is None


def test_the_same_rows_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        rows, _ = prepare(
            make_task(splits={"test": "halve_validation"}), write_folder(tmp_path / name), Path("unused"), 0
        )
        write_rows(rows)(tmp_path / f"{name} rows")
    for split in ("train", "validation", "test"):
        assert (tmp_path / f"one rows/t/{split}.parquet").read_bytes() == (
            tmp_path / f"two rows/t/{split}.parquet"
        ).read_bytes()


def test_a_file_is_the_one_that_a_whole_table_gives(tmp_path: Path) -> None:
    rows = make_rows(100, 3500)
    checked, _ = prepare(make_task(), write_folder(tmp_path / "source", train=rows), Path("unused"), 0)
    write_rows({"stored": checked["t"], "memory": {"train": Dataset.from_list(rows)}})(tmp_path / "rows")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "whole.parquet")
    for task in ("stored", "memory"):
        assert (tmp_path / f"rows/{task}/train.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize(
    ("limit", "groups"), [({"GROUP_ROWS": 1200}, [1200, 1200, 1100]), ({"GROUP_BYTES": 1}, [1000, 1000, 1000, 500])]
)
def test_a_large_split_is_written_in_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], groups: list[int]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(f"hyperformer.data.storage.{name}", value)
    rows = make_rows(0, 3500)
    write_rows({"t": {"train": Dataset.from_list(rows)}})(tmp_path)
    metadata = parquet.read_metadata(tmp_path / "t/train.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == groups
    assert read_rows(tmp_path, "t", "train").to_list() == rows
    assert list(stream_rows(tmp_path, "t", "train")) == rows


def test_rows_are_streamed_with_few_of_them_in_memory(tmp_path: Path) -> None:
    texts = (f"{i} {'word ' * 200}" for i in range(20_000))
    parquet.write_table(pa.table({"a": list(texts)}), tmp_path / "train.parquet")  # 20 MB in one row group
    before, peak = pa.total_allocated_bytes(), 0
    for number, row in enumerate(stream_rows(tmp_path.parent, tmp_path.name, "train")):
        assert row["a"].startswith(f"{number} ")
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert number == 19_999
    assert 0 < peak < 8_000_000


def test_first_rows_are_read_without_those_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperformer.data.storage.GROUP_ROWS", 1000)
    rows = make_rows(0, 2500)
    write_rows({"t": {"train": Dataset.from_list(rows)}})(tmp_path)
    assert read_first_rows(tmp_path, "t", "train", 1234).to_list() == rows[:1234]
    assert read_first_rows(tmp_path, "t", "train", 9999).to_list() == rows

    file = tmp_path / "t/train.parquet"
    content = bytearray(file.read_bytes())
    start = parquet.read_metadata(file).row_group(1).column(0).dictionary_page_offset
    content[start : start + 200] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(HyperFormerError, match=r"train\.parquet cannot be read \("):
        list(stream_rows(tmp_path, "t", "train"))
    assert read_first_rows(tmp_path, "t", "train", 1000).to_list() == rows[:1000]


def test_training_texts_are_the_text_columns_of_train(tmp_path: Path) -> None:
    rows, _ = prepare(make_task(), write_folder(tmp_path / "source"), Path("unused"), 0)
    write_rows(rows)(tmp_path / "rows")
    texts = list(stream_training_texts(tmp_path / "rows", make_task()))
    assert texts == [row[column] for row in make_rows(0, 10) for column in ("a", "b")]


def test_tokens_survive_writing_and_reading(tmp_path: Path) -> None:
    tokens = [{"input_ids": list(range(i % 7)), "labels": [i, 1]} for i in range(2345)]  # more than two chunks
    write_tokens({"t": iter(tokens), "empty": []})(tmp_path)
    assert read_tokens(tmp_path, "t").to_list() == tokens
    assert len(read_tokens(tmp_path, "empty")) == 0


def test_random_streams_depend_on_the_seed_and_the_names() -> None:
    first = list(make_rng(1, "a", 2).integers(1 << 30, size=4))
    assert first == list(make_rng(1, "a", 2).integers(1 << 30, size=4))
    others = [make_rng(2, "a", 2), make_rng(1, "b", 2), make_rng(1, "a", 3)]
    assert all(first != list(other.integers(1 << 30, size=4)) for other in others)


def test_collected_rows_keep_their_order() -> None:
    rows = [{"source": str(number), "target": ""} for number in range(10_002)]
    assert list(collect_rows(iter(rows))) == rows


# --- before a run


def test_a_missing_file_of_any_split_is_found_before_rows_are_read(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "rows")
    check_sources(make_task(), source)
    (tmp_path / "rows/validation.jsonl").unlink()
    with pytest.raises(
        HyperFormerError, match=r"task 't': .* has test\.jsonl, train\.jsonl; expected one file validation\.csv"
    ):
        check_sources(make_task(), source)
