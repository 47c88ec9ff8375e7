"""The command `hyperformer benchmark`."""

from __future__ import annotations

import json
import sys

import pytest

from hyperformer.cli import main

FAST = ["--seconds", "0"]


def read_table(output: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    return {columns[0]: columns[1:] for columns in lines[2:]}


def test_it_compares_every_variant_with_float32_and_names_the_fastest(bundles, capsys):
    assert main(["benchmark", str(bundles / "mood"), *FAST]) == 0
    output = capsys.readouterr().out
    table = read_table(output)
    assert {"float32", "OpenVINO"} <= table.keys()
    assert float(table["float32"][0]) > 0.0
    assert table["float32"][2] == "1.00 and 1.00"
    assert "CUDA: the provider cuda requires onnxruntime-gpu" in output
    assert "rows of random tokens" in output
    assert output.splitlines()[-1].startswith("Fastest in batches: hyperformer predict")


def test_it_measures_with_the_rows_of_the_command_line(bundles, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"sentence": f"the film is dull {i}"}) + "\n" for i in range(40)))
    assert main(["benchmark", str(bundles / "mood"), str(file), *FAST]) == 0
    output = capsys.readouterr().out
    assert "on 40 rows" in output
    assert read_table(output)["OpenVINO"][3].partition(" of ")[2].startswith("40,")


def test_a_variant_that_is_not_installed_is_named_and_left_out(bundles, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["benchmark", str(bundles / "mood"), *FAST]) == 0
    output = capsys.readouterr().out
    assert "OpenVINO" not in read_table(output)
    assert "OpenVINO: the provider openvino requires the package openvino, which is not installed." in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{bundles}"], "contains the tasks likeness, mood"),
        (["{bundles}/mood", '{{"text": "a"}}'], "row 1: the row has no 'sentence'"),
    ],
)
def test_what_it_cannot_measure_is_one_line(bundles, capsys, arguments, message):
    assert main(["benchmark", *(argument.format(bundles=bundles) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err
