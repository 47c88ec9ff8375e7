"""All pipelines as a user runs them: Kedro in the test environment, in a copy of the project."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial

import pytest
from processes import kedro, kedro_fork

from hyperformer.core import manifest
from hyperformer.core.files import folder_sha256
from hyperformer.report import times
from hyperformer.runtime import load


def test_a_run_saves_every_artifact_and_nothing_outside_its_environment(tree):
    data = tree / "data" / "test"
    tasks = ["entailment", "repeat", "sentiment", "similarity"]
    assert [path.name for path in (tree / "data").iterdir()] == ["test"]
    assert sorted(path.name for path in (data / "06_models" / "onnx").iterdir()) == tasks
    for task in tasks:
        description = manifest.read(data / "06_models" / "onnx" / task)
        assert description.parity["rows"] == 20
        assert description.parity["largest_difference"] < 1e-4
        manifest.verify(data / "06_models" / "onnx" / task, description.files)
        assert (data / "07_model_output" / "predictions" / task / "test.csv").read_text().count("\n") == 21
    metrics = json.loads((data / "08_reporting" / "metrics.json").read_text())
    assert set(metrics["test"]) == {*tasks, "mean"}
    assert set(metrics["test"]["repeat"]) == {"exact_match", "rouge_l", "bleu", "mean", "collapsed"}
    counts = json.loads((data / "08_reporting" / "parameter_counts.json").read_text())
    assert counts["trained"] > counts["added"] > 0
    report = (data / "08_reporting" / "report.html").read_text()
    assert all(f'<th scope="row">{task}</th>' in report for task in tasks)
    assert "<svg" in report


@pytest.mark.parametrize("method", ["adapters_per_task", "fine_tuning_per_task"])
def test_per_task_models_run_through_all_stages_with_one_changed_setting(copy, method):
    result = kedro(copy, "--tags", "train,evaluate,export,parameter_counts,report", "--params", f"method={method}")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    data = copy / "data" / "test"
    files = {path.name for path in (data / "06_models" / "checkpoint").glob("*.safetensors")}
    assert files == {f"trained-{task}.safetensors" for task in ("entailment", "repeat", "sentiment", "similarity")}
    assert manifest.read(data / "06_models" / "onnx" / "sentiment").method == method
    assert f"| {method} |" in (data / "08_reporting" / "results.md").read_text()
    assert not list((data / ".states").rglob("*.safetensors"))


def test_a_trained_model_is_adapted_to_new_tasks_and_exported(copy):
    (copy / "conf/transfer/parameters.yml").write_text("backbone: {path: data/test/06_models/backbone}")
    few = "embedded.train=40,embedded.validation=20,embedded.test=20,transfer.samples=16,transfer.steps=4"
    result = kedro(
        copy,
        *("--pipelines", "transfer"),
        *("--params", f"transfer.checkpoint=data/test/06_models/checkpoint,transfer.precision=fp32,{few}"),
        env="transfer",
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    data = copy / "data" / "transfer"
    tasks = ["reviews", "support", "word_order", "yes_no"]
    assert sorted(path.name for path in (data / "06_models" / "onnx").iterdir()) == tasks
    starts = json.loads((data / "08_reporting" / "transfer_starts.json").read_text())
    assert set(starts) == set(tasks)
    assert set(starts.values()) <= {"mean", "entailment", "repeat", "sentiment", "similarity"}
    assert not list((data / ".states").rglob("*.safetensors"))
    for arguments, message in (
        (("--tags", "report"), "was adapted by the pipeline transfer, and it has no history to report"),
        (("--pipelines", "train"), "was adapted by the pipeline transfer, and training would replace it"),
    ):
        result = kedro(copy, *arguments, env="transfer")
        assert result.returncode == 1
        assert message in (result.stdout + result.stderr).splitlines()[-1]
    (copy / "data" / "full").write_text("in the way")
    (copy / "conf" / "full").mkdir()
    (copy / "conf/full/parameters.yml").write_text(
        (copy / "conf/test/parameters_tasks.yml").read_text() + "\npreset: t5\n"
    )
    result = kedro(copy, "--pipelines", "language", env="full")
    assert result.returncode == 1
    assert "data/full: File exists. Check the path" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stdout + result.stderr


def test_classification_and_regression_tasks_are_exported_on_one_shared_base(copy):
    result = kedro(copy, "--pipelines", "shared_base", "--tags", "shared_base")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "repeat: not exported to the shared base, because" in result.stdout + result.stderr
    folder = copy / "data" / "test" / "06_models" / "onnx_shared"
    assert sorted(load(folder)) == ["entailment", "sentiment", "similarity"]
    assert (
        load(folder)["sentiment"]({"sentence": "a"}).label
        == load(folder.with_name("onnx"))["sentiment"]({"sentence": "a"}).label
    )


def test_times_are_measured_without_changing_the_report(copy, monkeypatch):
    monkeypatch.setattr(times, "measure", partial(times.measure, seconds=0.0))
    reports = copy / "data" / "test" / "08_reporting"
    steps = json.loads((reports / "times" / "steps.json").read_text())
    assert {"rows", "tokens", "checkpoint", "metrics", "bundles", "report"} <= set(steps)
    report = (reports / "report.html").read_bytes()
    result = kedro(copy, "--pipelines", "times")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "A single row takes" in (reports / "times" / "times.html").read_text()
    assert (reports / "report.html").read_bytes() == report
    shutil.rmtree(copy / "data" / "test" / "06_models" / "onnx")
    result = kedro(copy, "--pipelines", "times")
    assert result.returncode == 1
    assert "bundles is missing; expected it at " in result.stderr
    assert "Run the pipeline that creates it first" in result.stderr


def test_tasks_with_labels_may_be_evaluated_by_generation(copy):
    result = kedro(
        copy, "--tags", "evaluate,report", "--params", "evaluation.label_scoring=generated,evaluation.num_beams=2"
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    metrics = json.loads((copy / "data/test/08_reporting/metrics.json").read_text())["test"]
    assert metrics["sentiment"]["outside"] == 20.0  # an untrained backbone generates no label
    assert metrics["sentiment"]["accuracy"] == 0.0
    assert "20 answers outside" in (copy / "data/test/08_reporting/results.md").read_text()


def test_a_second_training_gives_the_same_bytes(copy):
    folders = [copy / "data" / "test" / part for part in ("05_model_input/tokens", "06_models/checkpoint")]
    before = [folder_sha256(folder) for folder in folders]
    assert kedro(copy, "--tags", "train").returncode == 0
    assert [folder_sha256(folder) for folder in folders] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--params", "training.step=3"], "unknown setting 'training.step'; did you mean 'steps'?"),
        (["--params", "trainig.steps=3"], "unknown setting 'trainig'; did you mean 'training'?"),
        (
            ["--params", "methods.hyperformer_plus_plus.reduction_factor=7", "--tags", "train"],
            "the method's reduction_factor is 7; expected a divisor of the backbone's width 32",
        ),
        (["--params", "method=hyperformers"], "the setting 'method' is 'hyperformers', but `methods` has no block"),
        (["--params", "data.source=nowhere/at-all", "--tags", "preprocess"], "cannot load split 'train' of 'nowhere"),
        (
            ["--params", "backbone.path=conf"],
            "cannot load a backbone from 'conf' (Unrecognized model in conf). Set",
        ),
        (
            ["--params", "data.source=/nowhere"],
            "task 'sentiment': the folder /nowhere does not exist; expected one file train.csv",
        ),
        (["--pipelines", "trian"], "unknown pipeline 'trian'; did you mean 'train'?"),
        (["--tags", "export", "--env", "glue"], "baselines is missing; expected it at"),
        (["--params", "evaluation.label_scoring=generated"], "expected 'constrained' or 'likelihood', because"),
        (
            ["--pipelines", "shared_base", "--params", "method=fine_tuning_multi_task"],
            "method fine_tuning_multi_task trains the backbone; expected a method with a frozen backbone",
        ),
        (
            ["--pipelines", "transfer", "--params", "transfer.checkpoint=data/test/06_models/checkpoint"],
            "'data/test/06_models/checkpoint', which this run would overwrite with the adapted checkpoint. Use another",
        ),
        (["--pipelines", "transfer", "--params", "transfer.checkpoint=nowhere"], "no checkpoint 'nowhere': neither a"),
        (["--tags", "xyz"], "unknown tag 'xyz'; expected one of baselines, check_quality, data_profile"),
    ],
)
def test_a_user_error_is_reported_in_one_line_before_the_first_node(tree, arguments, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = kedro(tree, *arguments)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not list((tree / "data").rglob(".*.new"))
    assert "saved " not in output


def test_invalid_yaml_is_reported_with_its_line(copy):
    broken = copy / "conf" / "broken"
    broken.mkdir()
    (broken / "parameters.yml").write_text("seed: 0\ntraining: {steps: 3\n")
    result = kedro(copy, env="broken")
    assert result.returncode == 1
    assert "conf/broken/parameters.yml, line 3, column 1: expected ',' or '}'" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stdout + result.stderr


def test_an_unknown_environment_is_reported_with_the_nearest_name(tree):
    result = kedro(tree, env="tset")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "Error: unknown environment 'tset'; did you mean 'test'?"


@pytest.mark.parametrize("env", ["", "base", "glue"])
def test_params_change_single_settings_of_blocks_that_base_alone_has(tree, env):
    result = kedro(tree, "--params", "export.opset=3", env=env)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: the setting 'export.opset' is invalid: Input should be greater than or equal to 18, got 3"
    )


TRAINING = ["--tags", "train", "--params", "training.steps=120,training.evaluate_every=40"]


def test_a_killed_training_resumes_and_ends_in_the_same_checkpoint(tree, tmp_path):
    uninterrupted = shutil.copytree(tree, tmp_path / "uninterrupted")
    assert kedro(uninterrupted, *TRAINING).returncode == 0

    killed = shutil.copytree(tree, tmp_path / "killed")
    with kedro_fork(killed, *TRAINING) as run:
        run.wait_for(r"step (8[1-9]|9\d) of 120")  # the state of step 80 is complete
        run.kill()
    assert run.process.exitcode == -signal.SIGKILL

    again = kedro(killed, *TRAINING)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "resuming from step 80" in again.stdout
    folders = [tree / "data/test/06_models/checkpoint" for tree in (uninterrupted, killed)]
    assert folder_sha256(folders[0]) == folder_sha256(folders[1])
    assert not list((killed / "data/test/.states").rglob("*.safetensors"))
