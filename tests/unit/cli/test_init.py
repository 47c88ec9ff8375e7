"""The command `init`: guesses from files of rows, the configuration that it writes, and what it refuses."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperformer.cli import main
from hyperformer.settings import Tasks, TransferSettings

WORDS = "the of a boat river light green stone walk quiet market early letter window garden under over bright".split()
Row = dict[str, Any]


def sentences(count: int, seed: int = 0, length: int = 8) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=length)) for _ in range(count)]


def write_csv(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_tickets(count: int = 120, seed: int = 0) -> list[Row]:
    texts, queues = sentences(count, seed), ["billing", "bug", "yes"]
    return [
        {"id": f"T{i}", "subject": text[:30], "body": text, "queue": queues[i % 3], "day": f"2024-01-{1 + i % 28:02}"}
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Change to the folder of an empty project."""
    root = tmp_path / "project"
    (root / "conf" / "base").mkdir(parents=True)
    (root / "pipelines").mkdir()
    for name in ("conf/base/parameters.yml", "pyproject.toml"):
        (root / name).write_text("")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def init(project, capsys):
    """Return a function that runs the command without DVC, and returns its exit code, output and error."""

    def run(*arguments: Any, env: str = "mine") -> tuple[int, str, str]:
        code = main(["init", *map(str, arguments), "--env", env, "--no-dvc"])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def read_task(name: str, env: str = "mine") -> Row:
    """Return the settings of a task that the command wrote, after the library has validated them."""
    tasks = yaml.safe_load(Path(f"conf/{env}/parameters_tasks.yml").read_text())["tasks"]
    Tasks.model_validate(tasks)
    return tasks[name]


def test_a_file_becomes_a_task_whose_every_guess_is_a_line(init, project, tmp_path):
    file = write_csv(tmp_path / "elsewhere" / "tickets.csv", make_tickets())
    code, output, _ = init(file)
    assert code == 0
    assert read_task("tickets") == {
        "source": {"path": "data/mine/01_raw/tickets"},
        "text": ["{subject}", "{body}"],
        "kind": "classification",
        "label_column": "queue",
        "labels": {"billing": "billing", "bug": "bug", "yes": "yes"},
        "metrics": ["accuracy", "f1"],
        "splits": {"validation": "stratified_18", "test": "stratified_18"},
    }
    assert (project / "data/mine/01_raw/tickets/train.csv").read_bytes() == file.read_bytes()
    for line in (
        "train 120 rows; columns id, subject, body, queue, day",
        "text: the pair subject, body; not used: id, day (--text)",
        "label: queue, 3 classes with 40 training rows each (--label, --kind)",
        "splits: 18 training rows each for validation and test, which have no file",
        f"copied {file} to data/mine/01_raw/tickets",
        "make minilm",
        "kedro run --env mine",
        "hyperformer serve data/mine/06_models/onnx",
    ):
        assert line in output
    assert re.search(r"kedro run --env mine  # train and export, about \d+ min here", output)
    text = Path("conf/mine/parameters_tasks.yml").read_text()
    assert '"yes": "yes"  # 40' in text
    assert f"hyperformer init {file} --env mine" in Path("conf/mine/parameters.yml").read_text()
    assert yaml.safe_load(Path("conf/mine/parameters.yml").read_text()) == {
        "backbone": {"path": "data/minilm/06_models/backbone"},
        "preset": "encoder",
        "export": {"examples": True},
    }


def test_a_folder_in_the_project_is_used_in_place_with_the_names_of_its_files(init, project):
    for name, seed in (("train", 0), ("dev", 1), ("test", 2)):
        write_csv(project / "rows" / "tickets" / f"{name}.csv", make_tickets(60, seed))
    assert init("rows/tickets")[0] == 0
    task = read_task("tickets")
    assert task["source"] == {"path": "rows/tickets"}
    assert task["splits"] == {"validation": "dev"}
    assert not Path("data").exists()


def test_a_folder_elsewhere_is_copied_with_the_names_of_its_splits(init, tmp_path):
    for name, seed in (("train", 0), ("val", 1)):
        write_csv(tmp_path / "tickets" / f"{name}.csv", make_tickets(60, seed))
    assert init(tmp_path / "tickets")[0] == 0
    assert sorted(path.name for path in Path("data/mine/01_raw/tickets").iterdir()) == ["train.csv", "validation.csv"]
    assert read_task("tickets")["splits"] == {"test": "stratified_9"}


def test_several_paths_are_several_tasks_with_their_own_options(init, tmp_path):
    first = write_csv(tmp_path / "first.csv", [{"a": t, "x": i % 2, "z": i % 3} for i, t in enumerate(sentences(60))])
    second = tmp_path / "second.jsonl"
    second.write_text(
        "".join(json.dumps({"q1": t, "q2": t[::-1], "score": i % 21 / 4}) + "\n" for i, t in enumerate(sentences(63)))
    )
    code, _, error = init(first, second)
    assert code == 1
    assert "first: the label may be 'x' or 'z'; expected one column. Set it with --label 'first=COLUMN'." in error
    assert init(first, second, "--label", "first=x", "--text", "second=compare {q1}", env="other")[0] == 0
    assert read_task("first", "other")["label_column"] == "x"
    task = read_task("second", "other")
    assert task["text"] == "compare {q1}"
    assert (task["kind"], task["minimum"], task["maximum"], task["step"]) == ("regression", 0, 5, 0.25)
    assert task["splits"] == {"validation": "hold_out_9", "test": "hold_out_9"}


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([1, 2, 3, 4, 5], "classification"),
        (["1.0", "2.0"], "classification"),
        ([0, 0.5, 1, 1.5], "regression"),
        (list(range(40)), "regression"),
    ],
)
def test_few_integers_are_classes_and_other_numbers_a_scale(labels, kind, init, tmp_path):
    rows = [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(sentences(400))]
    assert init(write_csv(tmp_path / "rows.csv", rows))[0] == 0
    assert read_task("rows")["kind"] == kind


def test_an_option_overrides_the_kind_and_sets_a_scale(init, tmp_path):
    rows = [{"text": text, "label": i % 5} for i, text in enumerate(sentences(100))]
    file = write_csv(tmp_path / "rows.csv", rows)
    assert init(file, "--kind", "regression")[0] == 0
    assert read_task("rows")["step"] == 1
    assert init(file, "--scale", "0:10:2", env="other")[0] == 0
    task = read_task("rows", "other")
    assert (task["minimum"], task["maximum"], task["step"]) == (0, 10, 2)


def test_three_texts_are_named_in_the_template(init, tmp_path):
    rows = [{"a": t, "b": t[5:], "c": t[9:], "label": "xy"[i % 2]} for i, t in enumerate(sentences(60, length=9))]
    assert init(write_csv(tmp_path / "rows.csv", rows))[0] == 0
    assert read_task("rows")["text"] == "a: {a} b: {b} c: {c}"


def test_imbalance_changes_the_metric(init, tmp_path):
    rows = [{"text": text, "label": "rare" if i % 25 == 0 else "usual"} for i, text in enumerate(sentences(500))]
    _, output, _ = init(write_csv(tmp_path / "rows.csv", rows))
    assert (
        "the most frequent label has 24 times the rows of the least frequent; the metric is the Matthews correlation"
        in output
    )
    assert read_task("rows")["metrics"] == ["matthews"]


def test_labels_can_be_merged(init, tmp_path):
    rows = [
        {"text": text, "label": ["a", "b", "c", "d"][i % 4 if i < 8 else i % 2]} for i, text in enumerate(sentences(80))
    ]
    file = write_csv(tmp_path / "rows.csv", rows)
    code, _, error = init(file)
    assert code == 1
    assert "the label 'c' has 2 rows, of which 1 stay for training (and 1 more labels); expected at least 8." in error
    assert "--merge rows:ANSWER=c,OTHER" in error
    code, _, error = init(file, "--merge", "rows:other=b,c,d")
    assert code == 0
    assert read_task("rows")["merge_labels"] == {"other": ["b", "c", "d"]}


@pytest.mark.parametrize(("column", "missing"), [("label", "drop"), ("text", "empty")])
def test_rows_without_a_label_are_left_out_and_a_null_text_is_empty(column, missing, init, tmp_path):
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(sentences(60))]
    rows[3][column] = None
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, output, _ = init(file)
    assert "  missing: " in output
    assert read_task("rows")["missing"] == missing


SQUARES = [0.5 * n * n for n in range(40)]


def with_label(*labels: Any, count: int = 60) -> list[Row]:
    return [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(sentences(count))]


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (with_label("a"), [], "'label' has a single value"),
        (
            [{"text": t, "id": i * 7} for i, t in enumerate(sentences(60))],
            [],
            "'id' has another number in nearly every",
        ),
        (
            [{"text": t} for t in sentences(9)],
            [],
            "has the column 'text' alone with texts, numbers or booleans; expected at least a",
        ),
        (
            [{"a": i % 2, "b": i % 3} for i in range(60)],
            [],
            "the label may be 'a' or 'b'; expected one column. Set it with",
        ),
        (with_label("a", "b"), ["--label", "lable"], "rows has no column 'lable'; did you mean 'label'?"),
        (
            with_label("a", "b"),
            ["--text", "{label}", "--label", "label"],
            "the text '{label}' has the label column 'label'",
        ),
        (with_label("a", "b"), ["--text", "fixed"], "the text 'fixed' names no column"),
        (with_label("a", "b"), ["--kind", "regressio"], "unknown kind 'regressio'; did you mean 'regression'?"),
        (
            with_label("a", "b"),
            ["--kind", "regression"],
            "has values that are no numbers, such as 'a'; expected",
        ),
        (with_label("a", "b", ""), [], "the label 'label' is empty in 20 rows; expected a label in each row"),
        (
            with_label(*SQUARES, count=120),
            [],
            "they are rounded. Set it, such as --scale 'rows=0:770:10'",
        ),
        (with_label("a", "b"), ["--scale", "5:0:1"], "got --scale '5:0:1'; expected a maximum above the minimum"),
        (with_label("a", "b"), ["--merge", "rows:c=x,y"], "--merge has the unknown label 'x'"),
        (with_label("a", "b"), ["--merge", "c=x"], "got --merge 'c=x'; expected TASK:ANSWER=LABEL,LABEL"),
        ([{"a": f"w{i % 9}", "label": f"v{i % 30}"} for i in range(60)], [], "'label' has 30 different values"),
    ],
)
def test_what_cannot_be_guessed_is_one_sentence(rows, arguments, message, init, tmp_path):
    code, _, error = init(write_csv(tmp_path / "rows.csv", rows), *arguments)
    assert code == 1
    assert message in error
    assert error.count("\n") == 1
    assert not Path("conf/mine").exists()
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("name", "rows", "arguments", "message"),
    [
        ("mean", with_label("a", "b"), [], "got the task name 'mean', which is the key of the mean over tasks"),
        ("rows", with_label("1", "1.0"), [], "two labels are the same number"),
        ("rows", with_label("a", "b"), ["--merge", "rows:c=a,b"], "--merge leaves a single answer"),
        ("rows", with_label("a", "b", "c"), ["--merge", "rows:x=a", "--merge", "rows:y=a"], "merge each label once"),
        ("rows", with_label(1, 2), ["--scale", "0:1000000000:1"], "at most 1000 steps"),
        ("rows", with_label(1, 2, 3), ["--scale", "2:4:1"], "has numbers from 1 to 3; expected numbers on the scale"),
        (
            "rows",
            with_label(1, 2),
            ["--kind", "classification", "--scale", "1:2:1"],
            "got --scale for a",
        ),
        ("rows", with_label(0.5, 1, ""), [], "the label 'label' is empty in 20 rows"),
        ("rows", with_label("label", "b"), [], "the name of the column 'label' is also one of its values"),
        ("rows", with_label("a", "b"), ["--backbone", "nothing/at/all"], "has no config.json; expected the folder"),
        ("rows", with_label("a", "b"), ["--backbone", "."], "has no config.json; expected the folder"),
        ("rows", with_label(*[*map(str, range(9)), "N/A"] * 9, count=90), [], "has numbers, but also 'N/A'"),
        ("rows", with_label(*sentences(60)), ["--label", "label", "--text", "{text}"], "has 60 different values in 60"),
        ("train", with_label("a", "b"), [], "train.csv is the train file of a folder, whose name the task gets"),
    ],
)
def test_settings_that_a_run_would_refuse_are_not_written(name, rows, arguments, message, init, tmp_path):
    code, _, error = init(write_csv(tmp_path / f"{name}.csv", rows), *arguments)
    assert code == 1
    assert message in error
    assert not Path("conf/mine").exists()


def test_names_and_labels_are_written_as_they_are(init, tmp_path):
    labels = ["${x}", "a: b # c", 'it\'s "quoted"', "line\u2028break", "no", "007", " space "]
    assert init(write_csv(tmp_path / "rows.csv", with_label(*labels, count=140)))[0] == 0
    assert list(read_task("rows")["labels"]) == [label.replace("${", "\\${") for label in sorted(labels)]


def test_repeated_merges_of_an_answer_are_joined(init, tmp_path):
    file = write_csv(tmp_path / "rows.csv", with_label("a", "b", "c", count=90))
    assert init(file, "--merge", "rows:x=a", "--merge", "rows:x=b")[0] == 0
    assert read_task("rows")["merge_labels"] == {"x": ["a", "b"]}


def test_a_number_matches_all_its_forms_in_other_splits(init, tmp_path):
    write_csv(tmp_path / "rows" / "train.csv", with_label(0, 1))
    write_csv(tmp_path / "rows" / "test.csv", with_label("0.0", "1.0"))
    assert init(tmp_path / "rows")[0] == 0


def test_labels_that_differ_in_case_are_a_warning(init, tmp_path):
    output = init(write_csv(tmp_path / "rows.csv", with_label("Bug", "bug", "other")))[1]
    assert "warning: the labels 'Bug' and 'bug' differ only in case, spaces or encoding" in output


def test_long_texts_are_mentioned_and_the_example_is_short(init, tmp_path):
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(sentences(60, length=400))]
    output = init(write_csv(tmp_path / "rows.csv", rows))[1]
    assert "long texts: a row has about 560 tokens, of which the first 128 are read" in output
    assert max(map(len, output.splitlines())) < 600


def test_a_column_of_numbers_with_the_name_of_a_label_is_preferred(init, tmp_path):
    rows = [{"genre": "ab"[i % 2], "text": text, "score": round(i / 7, 3)} for i, text in enumerate(sentences(80))]
    error = init(write_csv(tmp_path / "rows.csv", rows))[2]
    assert "the label 'score' has 80 different numbers, on no scale of at most 200 steps" in error
    assert "--scale 'rows=0:11.4:0.2'" in error


def test_a_label_that_only_a_later_split_has_is_refused(init, tmp_path):
    write_csv(tmp_path / "rows" / "train.csv", with_label("a", "b"))
    write_csv(tmp_path / "rows" / "test.csv", with_label("a", "c"))
    assert "the label 'c' occurs in validation or test, but not in train" in init(tmp_path / "rows")[2]


def test_nothing_is_overwritten(init, project, tmp_path):
    file = write_csv(tmp_path / "rows.csv", with_label("a", "b"))
    assert init(file)[0] == 0
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    code, _, error = init(file)
    assert code == 1
    assert "conf/mine exists already, and nothing is overwritten" in error
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["a b", "../x", ""])
def test_a_name_that_is_no_environment_is_refused(name, init, tmp_path):
    assert "got the environment name" in init(write_csv(tmp_path / "rows.csv", with_label("a", "b")), env=name)[2]


def test_files_that_are_no_task_are_refused(init, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.xlsx").write_text("")
    write_csv(tmp_path / "twice" / "train.csv", with_label("a", "b"))
    write_csv(tmp_path / "twice" / "train.tsv", with_label("a", "b"))
    assert "does not exist; expected a file of rows" in init(tmp_path / "nothing.csv")[2]
    assert "has no files; expected a file train" in init(tmp_path / "empty")[2]
    assert "is not a file of rows; expected .csv" in init(tmp_path / "rows.xlsx")[2]
    assert "has train.csv and train.tsv; expected one file of train rows" in init(tmp_path / "twice")[2]
    first, second = (write_csv(tmp_path / name / "rows.csv", with_label("a", "b")) for name in ("x", "y"))
    assert "two paths give the task name 'rows'" in init(first, second)[2]


def test_outside_of_a_checkout_it_says_so(tmp_path, monkeypatch, capsys):
    file = write_csv(tmp_path / "rows.csv", with_label("a", "b"))
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(file), "--env", "mine"]) == 1
    assert "is not a checkout of this project" in capsys.readouterr().err


def test_without_git_it_says_so(project, tmp_path, capsys):
    file = write_csv(tmp_path / "rows.csv", with_label("a", "b"))
    assert main(["init", str(file), "--env", "mine"]) == 1
    assert "git is not installed, or" in capsys.readouterr().err


def train_environment(env: str, groups: list[list[str]]) -> None:
    """Write the files of an environment with a trained model that the command reads."""
    Path("conf", env).mkdir()
    checkpoint = Path("data", env, "06_models", "checkpoint")
    checkpoint.mkdir(parents=True)
    configuration = {"groups": groups, "backbone": {"path": "models/encoder"}}
    (checkpoint / "configuration.json").write_text(json.dumps(configuration))


def test_new_tasks_join_a_trained_model(init, tmp_path):
    train_environment("old", [["a", "b"]])
    code, output, _ = init(write_csv(tmp_path / "rows.csv", with_label("a", "b", count=240)), "--onto", "old")
    assert code == 0
    parameters = yaml.safe_load(Path("conf/mine/parameters.yml").read_text())
    assert parameters["backbone"] == {"path": "models/encoder"}
    transfer = TransferSettings(learning_rate=1e-3, **parameters["transfer"])
    assert (transfer.checkpoint, transfer.samples) == ("data/old/06_models/checkpoint", None)
    assert (transfer.steps, transfer.warmup_steps) == (150, 15)
    assert "kedro run --env mine --pipelines transfer" in output
    assert "unchanged: conf/old, its trained model and its exported tasks" in output


def test_an_environment_without_one_trained_model_is_refused(init, tmp_path):
    file = write_csv(tmp_path / "rows.csv", with_label("a", "b"))
    train_environment("apart", [["a"], ["b"]])
    Path("conf/untrained").mkdir()
    assert "unknown environment 'untraind'; did you mean 'untrained'?" in init(file, "--onto", "untraind")[2]
    assert "has no trained model in data/untrained/06_models/checkpoint" in init(file, "--onto", "untrained")[2]
    assert "trains a model for each task; expected one model for all tasks" in init(file, "--onto", "apart")[2]


def test_another_language_is_a_warning_with_a_multilingual_backbone(init, tmp_path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = list("жщюяфцш")
    vocabulary = {token: index for index, token in enumerate(["[UNK]", *WORDS, *letters, *(f"##{x}" for x in letters)])}
    vocabulary |= {f"word{i}": len(vocabulary) + i for i in range(1000)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    english = write_csv(tmp_path / "en.csv", with_label("a", "b"))
    rows = [{"text": f"жщю яфц {letter}", "label": "ab"[i % 2]} for i, letter in enumerate(letters * 12)]
    russian = write_csv(tmp_path / "ru.csv", rows)
    (tmp_path / "config.json").write_text("{}")
    assert "warning" not in init(english, "--backbone", tmp_path, env="en")[1]
    output = init(russian, "--backbone", tmp_path, env="ru")[1]
    assert "warning: 100% of the tokens of words are single letters; use a backbone" in output
    assert "paraphrase-multilingual" in output
