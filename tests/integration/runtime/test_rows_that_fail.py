"""Rows that the tokenizer or graph fails on, or whose scores are not finite: errors with the row's number."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperformer import evaluation
from hyperformer.cli import main
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError, RowError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import MANIFEST, TOKENIZER
from hyperformer.runtime import Bundle, bundle, load
from hyperformer.runtime.files import run_on_rows

ROWS = [{"sentence": sentence} for sentence in ("a good film", "the film is dull although", "bright", "a book")]
FAILING = {"sentence": "the song is wicked although nobody had expected it"}


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    """Copy a bundle, which a test may damage."""
    return shutil.copytree(bundles / "mood", tmp_path / "mood")


def change_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change a bundle's tokenizer, and update its checksum."""
    tokenizer = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    change(tokenizer)
    (folder / TOKENIZER).write_text(json.dumps(tokenizer), encoding="utf-8")
    description = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    description["files"][TOKENIZER] = sha256(folder / TOKENIZER)
    (folder / MANIFEST).write_text(json.dumps(description), encoding="utf-8")
    return folder


class FailingSession:
    """A session whose scores of a single text are not finite."""

    def __init__(self, original: Any, ids: list[int], value: float) -> None:
        self._original, self._ids, self._value = original, ids, value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def run(self, names: list[str], inputs: dict[str, Any], options: Any = None) -> Any:
        (scores,) = self._original.run(names, inputs, options)
        for number, (ids, mask) in enumerate(zip(inputs["input_ids"], inputs["attention_mask"], strict=True)):
            if ids[mask == 1].tolist() == self._ids:
                scores[number, -1] = self._value
        return [scores]


def fail_on_row(bundle: Bundle, value: float) -> Bundle:
    [ids], _ = bundle.encode([bundle.source(FAILING)])
    bundle._session = FailingSession(bundle._session, ids, value)
    return bundle


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_that_are_not_finite_are_refused_by_the_rows_number(bundles, value, batch_size):
    failing = fail_on_row(load(bundles / "mood"), value)
    with pytest.raises(RowError, match=rf"^row 3: the model's scores are .*{value}; expected finite numbers") as caught:
        failing.answer([*ROWS[:2], FAILING, *ROWS[2:]], batch_size)
    assert caught.value.row == 2
    assert caught.value.reason in str(caught.value)
    assert [answer.label for answer in failing.answer(ROWS)] == [a.label for a in load(bundles / "mood").answer(ROWS)]


def test_predict_names_the_line_of_a_row_whose_scores_are_not_finite_and_keeps_those_before(
    bundles, tmp_path, capsys, monkeypatch
):
    original = bundle.open_session
    [ids], _ = load(bundles / "mood").encode([load(bundles / "mood").source(FAILING)])
    monkeypatch.setattr(bundle, "open_session", lambda *arguments: FailingSession(original(*arguments), ids, math.nan))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [*ROWS[:2], FAILING, ROWS[2], FAILING, {"text": "x"}])))
    assert main(["predict", str(bundles / "mood"), str(file)]) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["label"] for line in printed.out.splitlines()] == [
        answer.label for answer in load(bundles / "mood").answer(ROWS[:2])
    ]
    assert printed.err.startswith(f"hyperformer: {file}, line 3: the model's scores are ")
    assert printed.err.endswith("(rows predicted before it: 2)\n")
    assert len(printed.err.splitlines()) == 1


def test_an_evaluation_names_the_task_split_and_row_of_scores_that_are_not_finite(toy_rows, make_model):
    import torch

    model = make_model()

    def answer(task: str, rows: Any) -> Any:
        answers = model.answer(task, rows)
        if task == "mood3":
            return text.combine_rows([[0.0, 0.0], [0.0, math.nan]], ["a", "b"])
        return answers

    with pytest.raises(HyperFormerError, match=r"^task 'mood3', validation, row 2: the model's scores are 0, nan; exp"):
        evaluation.evaluate_all(answer, model.tasks, toy_rows)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(math.nan)
    with pytest.raises(HyperFormerError, match=r"^task 'mood', validation, row 1: the model's scores are nan, nan; "):
        evaluation.evaluate_all(model.answer, model.tasks, toy_rows)


def test_a_tokenizer_that_panics_is_an_error_of_its_row(copied, capfd):
    """Its pattern backtracks more than the library allows."""

    def change(tokenizer: dict[str, Any]) -> None:
        slow = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [slow, tokenizer["pre_tokenizer"]]}

    loaded = load(change_tokenizer(copied, change))
    assert len(loaded.answer(ROWS)) == len(ROWS)
    with pytest.raises(RowError, match=r"^row 2: the tokenizer cannot read the text \(.*[Rr]egex") as caught:
        loaded.answer([ROWS[0], {"sentence": "x" * 60}, ROWS[1]])
    assert caught.value.row == 1
    rows = [json.dumps(ROWS[0]), json.dumps({"sentence": "x" * 60})]
    assert main(["predict", str(copied), *rows]) == 1
    printed = capfd.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert printed.err.splitlines()[-1].startswith("hyperformer: row 2: the tokenizer cannot read the text (")


def test_a_token_id_that_the_graph_does_not_know_is_an_error_of_its_row(copied):
    ids = load(copied).encode(["bright"])[0][0]

    def change(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary.update({piece: 99_999 for piece, number in vocabulary.items() if number == ids[-2]})

    loaded = load(change_tokenizer(copied, change))
    with pytest.raises(RowError, match=r"^row 2: the graph cannot read the row's tokens \(.*99999") as caught:
        loaded.answer([{"sentence": "a film"}, {"sentence": "bright"}, {"sentence": "a dull film today"}])
    assert caught.value.row == 1


def test_a_failure_on_all_rows_together_only_names_no_row():
    def fail(rows: Any) -> int:
        if len(rows) > 1:
            raise MemoryError
        return len(rows)

    with pytest.raises(HyperFormerError, match=r"^it fails \(MemoryError\)\. Use fewer rows at once") as caught:
        run_on_rows(fail, [1, 2], "it fails")
    assert not isinstance(caught.value, RowError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_request_to_stop_is_not_an_error_of_a_row(error):
    def fail(rows: Any) -> None:
        raise error

    with pytest.raises(error):
        run_on_rows(fail, [1, 2], "it fails")


@pytest.mark.parametrize("command", [["predict"], ["predict", "--csv"], ["inspect"]], ids=" ".join)
def test_a_label_that_the_output_cannot_encode_is_a_single_line_error(copied, capsys, monkeypatch, command):
    description = json.loads((copied / MANIFEST).read_text(encoding="utf-8"))
    (copied / MANIFEST).write_text(json.dumps({**description, "labels": ["négatif", "très positif"]}), encoding="utf-8")
    rows = [json.dumps(ROWS[0])] if command[0] == "predict" else []
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert main([*command, str(copied), *rows]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hyperformer: the output is in ascii, which has no '")
    assert error.endswith("expected UTF-8. Set PYTHONIOENCODING=utf-8, or a UTF-8 locale, and run again.\n")
    assert len(error.splitlines()) == 1
    assert main([*command, str(copied), *rows]) == 0


def test_finite_scores_are_combined_row_by_row():
    rows = np.log([[0.25, 0.75], [0.5, 0.5]]).tolist()
    assert text.combine_rows(rows, ["a", "b"]) == [text.combine(row, ["a", "b"]) for row in rows]
