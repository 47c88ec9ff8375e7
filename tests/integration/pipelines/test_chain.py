"""The whole chain as a user runs it: Kedro in the test environment, in a copy of the tree."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial

import pytest
from processes import kedro, kedro_fork

from hyperformer import manifest
from hyperformer.report import times
from hyperformer.runtime import load


def test_one_run_makes_every_artifact_and_nothing_outside_its_environment(tree):
    data = tree / "data" / "test"
    tasks = ["entailment", "repeat", "sentiment", "similarity"]
    assert [path.name for path in (tree / "data").iterdir()] == ["test"]
    assert sorted(path.name for path in (data / "06_models" / "onnx").iterdir()) == tasks
    for task in tasks:
        found = manifest.read(data / "06_models" / "onnx" / task)
        assert found.parity["rows"] == 20
        assert found.parity["largest_difference"] < 1e-4
        manifest.verify(data / "06_models" / "onnx" / task, found.files)
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
def test_a_model_for_each_task_goes_through_the_whole_chain_by_one_changed_value(copy, method):
    done = kedro(copy, "--tags", "train,evaluate,export,parameter_counts,report", "--params", f"method={method}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    data = copy / "data" / "test"
    files = {path.name for path in (data / "06_models" / "checkpoint").glob("*.safetensors")}
    assert files == {f"trained-{task}.safetensors" for task in ("entailment", "repeat", "sentiment", "similarity")}
    assert manifest.read(data / "06_models" / "onnx" / "sentiment").method == method
    assert f"| {method} |" in (data / "08_reporting" / "results.md").read_text()
    assert not list((data / ".states").rglob("*.safetensors"))


def test_a_trained_model_is_adapted_to_new_tasks_and_exported(copy):
    few = "embedded.train=40,embedded.validation=20,embedded.test=20,transfer.samples=16,transfer.steps=4"
    done = kedro(
        copy,
        *("--pipelines", "transfer"),
        *("--params", f"transfer.checkpoint=data/test/06_models/checkpoint,transfer.precision=fp32,{few}"),
        env="transfer",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    data = copy / "data" / "transfer"
    tasks = ["reviews", "support", "word_order", "yes_no"]
    assert sorted(path.name for path in (data / "06_models" / "onnx").iterdir()) == tasks
    starts = json.loads((data / "08_reporting" / "transfer_starts.json").read_text())
    assert set(starts) == set(tasks)
    assert set(starts.values()) <= {"entailment", "repeat", "sentiment", "similarity"}
    assert not list((data / ".states").rglob("*.safetensors"))
    for words, said in (
        (("--tags", "report"), "was adapted by the pipeline transfer, and it has no history to report"),
        (("--pipelines", "train"), "was adapted by the pipeline transfer, and training would replace it"),
    ):
        done = kedro(copy, *words, env="transfer")
        assert done.returncode == 1
        assert said in (done.stdout + done.stderr).splitlines()[-1]
    (copy / "data" / "full").write_text("in the way")
    (copy / "conf" / "full").mkdir()
    done = kedro(copy, "--pipelines", "language", env="full")
    assert done.returncode == 1
    assert "data/full: File exists; see to the place" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def test_the_tasks_of_given_answers_are_put_on_one_base(copy):
    done = kedro(copy, "--pipelines", "shared_base", "--tags", "shared_base")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "repeat: generative, so not exported to the shared base" in done.stdout + done.stderr
    folder = copy / "data" / "test" / "06_models" / "onnx_shared"
    assert sorted(load(folder)) == ["entailment", "sentiment", "similarity"]
    assert (
        load(folder)["sentiment"]({"sentence": "a"}).label
        == load(folder.with_name("onnx"))["sentiment"]({"sentence": "a"}).label
    )


def test_times_are_measured_beside_the_report_once_there_are_graphs(copy, monkeypatch):
    monkeypatch.setattr(times, "measure", partial(times.measure, seconds=0.0))
    reports = copy / "data" / "test" / "08_reporting"
    steps = json.loads((reports / "times" / "steps.json").read_text())
    assert {"rows", "tokens", "checkpoint", "metrics", "bundles", "report"} <= set(steps)
    report = (reports / "report.html").read_bytes()
    done = kedro(copy, "--pipelines", "times")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "A row alone takes" in (reports / "times" / "times.html").read_text()
    assert (reports / "report.html").read_bytes() == report
    shutil.rmtree(copy / "data" / "test" / "06_models" / "onnx")
    done = kedro(copy, "--pipelines", "times")
    assert done.returncode == 1
    assert "bundles is missing, expected in " in done.stderr
    assert "run the pipeline that makes it first" in done.stderr


def test_label_scoring_may_be_evaluated_by_what_is_generated(copy):
    done = kedro(
        copy, "--tags", "evaluate,report", "--params", "evaluation.label_scoring=generated,evaluation.num_beams=2"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((copy / "data/test/08_reporting/metrics.json").read_text())["test"]
    assert found["sentiment"]["outside"] == 20.0  # an untrained backbone writes no answer
    assert found["sentiment"]["accuracy"] == 0.0
    assert "20 answers outside" in (copy / "data/test/08_reporting/results.md").read_text()


def test_a_second_training_gives_the_same_bytes(copy):
    folders = [copy / "data" / "test" / part for part in ("05_model_input/tokens", "06_models/checkpoint")]
    before = [manifest.folder_sha256(folder) for folder in folders]
    assert kedro(copy, "--tags", "train").returncode == 0
    assert [manifest.folder_sha256(folder) for folder in folders] == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--params", "training.step=3"], "unknown setting 'training.step'; did you mean 'steps'?"),
        (["--params", "trainig.steps=3"], "unknown setting 'trainig'; did you mean 'training'?"),
        (
            ["--params", "methods.hyperformer_plus_plus.reduction_factor=7", "--tags", "train"],
            "the method's reduction_factor is 7, expected a divisor of the backbone's width 32",
        ),
        (["--params", "method=hyperformers"], "the setting 'method' is 'hyperformers', but `methods` has no block"),
        (["--params", "data.source=nowhere/at-all", "--tags", "preprocess"], "no rows of split 'train'"),
        (
            ["--params", "backbone.path=conf"],
            "no backbone could be loaded from 'conf' (Unrecognized model in conf); set",
        ),
        (
            ["--params", "data.source=/nowhere"],
            "task 'sentiment': expected one of train.parquet, train.csv, train.jsonl",
        ),
        (["--pipelines", "trian"], "unknown pipeline 'trian'; did you mean 'train'?"),
        (["--tags", "export", "--env", "glue"], "checkpoint is missing, expected in"),
        (["--params", "evaluation.label_scoring=generated"], "graphs of closed tasks score their answers; export"),
        (
            ["--pipelines", "shared_base", "--params", "method=fine_tuning_multi_task"],
            "method fine_tuning_multi_task trains the backbone; expected a method with a frozen backbone",
        ),
        (
            ["--pipelines", "transfer", "--params", "transfer.checkpoint=data/test/06_models/checkpoint"],
            "'data/test/06_models/checkpoint', where this run would write the adapted one; adapt it in an environment",
        ),
        (["--pipelines", "transfer", "--params", "transfer.checkpoint=nowhere"], "no checkpoint 'nowhere': neither a"),
        (["--tags", "xyz"], "unknown tag 'xyz'; known here: baselines, data_profile, evaluate"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence_before_any_work(tree, words, sentence, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = kedro(tree, *words)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert sentence in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not list((tree / "data").rglob(".*.new"))
    assert "made " not in said


def test_broken_yaml_is_named_with_its_line(copy):
    broken = copy / "conf" / "broken"
    broken.mkdir()
    (broken / "parameters.yml").write_text("seed: 0\ntraining: {steps: 3\n")
    done = kedro(copy, env="broken")
    assert done.returncode == 1
    assert "conf/broken/parameters.yml, unable to read line 2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_environment_is_answered_with_the_nearest(tree):
    done = kedro(tree, env="tset")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: unknown environment 'tset'; did you mean 'test'?"


@pytest.mark.parametrize("env", ["", "base", "glue"])
def test_params_change_single_settings_of_blocks_that_base_alone_has(tree, env):
    done = kedro(tree, "--params", "export.opset=3", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: the setting 'export.opset' cannot be used: Input should be greater than or equal to 18, got 3"
    )


TRAINING = ["--tags", "train", "--params", "training.steps=120,training.evaluate_every=40"]


def test_a_killed_training_goes_on_and_ends_in_the_same_checkpoint(tree, tmp_path):
    straight = shutil.copytree(tree, tmp_path / "straight")
    assert kedro(straight, *TRAINING).returncode == 0

    killed = shutil.copytree(tree, tmp_path / "killed")
    with kedro_fork(killed, *TRAINING) as run:
        run.wait_for(r"step (8[1-9]|9\d) of 120")  # the state of step 80 is complete
        run.kill()
    assert run.process.exitcode == -signal.SIGKILL

    again = kedro(killed, *TRAINING)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "going on from step 80" in again.stdout
    folders = [tree / "data/test/06_models/checkpoint" for tree in (straight, killed)]
    assert manifest.folder_sha256(folders[0]) == manifest.folder_sha256(folders[1])
    assert not list((killed / "data/test/.states").rglob("*.safetensors"))
