"""The GLUE settings follow the paper's protocol, without the four bugs of the authors' code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyarrow import parquet

from hyperformer.data.splits import prepare
from hyperformer.methods.learning_rates import HypernetworkMultipliers
from hyperformer.preflight.settings import check_settings
from hyperformer.settings import DataSettings, Settings
from hyperformer.tasks import Task, make_tasks
from pipelines.settings import CONFIG_LOADER_ARGS, ConfigLoader

ROOT = Path(__file__).resolve().parents[2]
GLUE = Path(os.environ.get("HYPERFORMER_SHARED", ROOT.parent / "shared")) / "data" / "glue"
SMALL = ("cola", "mrpc", "stsb", "rte")
HELD_OUT = ("sst2", "qqp", "qnli")
TASKS = (*SMALL, *HELD_OUT, "mnli")
real_rows = pytest.mark.skipif(
    not GLUE.is_dir(), reason=f"no GLUE rows in {GLUE}; set HYPERFORMER_SHARED to the folder that has data/glue"
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    loader = ConfigLoader(conf_source=str(ROOT / "conf"), env="glue", **CONFIG_LOADER_ARGS)
    return check_settings(loader["parameters"])


@pytest.fixture(scope="module")
def tasks(settings: Settings) -> dict[str, Task]:
    return make_tasks(settings.tasks)


def test_budget_and_sizes_are_the_papers(settings: Settings, tasks: dict[str, Task]) -> None:
    training, backbone = settings.training, settings.backbone
    assert (training.steps, training.batch_size, training.evaluate_every) == (65_536, 128, 1_000)
    assert (training.learning_rate, training.warmup_steps, training.label_smoothing) == (3e-4, 500, 0.1)
    assert (training.temperature, backbone.max_source_tokens, backbone.max_target_tokens) == (10, 128, 128)
    assert set(tasks) == set(TASKS)
    assert all(answer.replace(".", "").isdigit() for task in tasks.values() for answer in task.answers)
    assert {name: task.settings.metrics for name, task in tasks.items()} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "qqp": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
    }


@pytest.mark.parametrize("name", HELD_OUT)
def test_validation_rows_are_held_out_from_train(settings: Settings, name: str) -> None:
    splits = settings.tasks.root[name].splits
    assert (splits.train, splits.validation, splits.test) == ("train", "hold_out_1000", "validation")


@pytest.mark.parametrize("name", SMALL)
def test_small_tasks_halve_their_validation_split(settings: Settings, name: str) -> None:
    splits = settings.tasks.root[name].splits
    assert (splits.validation, splits.test) == ("validation", "halve_validation")


@pytest.mark.parametrize(("score", "answer"), [(2.333, "2.4"), (2.5, "2.4"), (4.9, "4.8"), (5.0, "5.0"), (0.1, "0.0")])
def test_similarity_is_rounded_to_the_nearest_fifth(tasks: dict[str, Task], score: float, answer: str) -> None:
    assert tasks["stsb"].make_example({"sentence1": "a", "sentence2": "b", "label": score}).answer == answer


def test_every_field_of_inference_is_named_with_a_colon(tasks: dict[str, Task]) -> None:
    row = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0}
    assert tasks["mnli"].make_example(row).source == "premise: It rains. hypothesis: It is wet."
    for task in tasks.values():
        assert all(f"{column}: {{{column}}}" in task.settings.text for column in task.text_columns)


def test_the_method_and_its_sizes_are_the_papers(settings: Settings) -> None:
    assert settings.method == "hyperformer_plus_plus"
    assert settings.chosen_method.settings.model_dump() == {
        "reduction_factor": 32,
        "activation": "gelu_new",
        "positions": "both",
        "stacks": "both",
        "adapter_init": "paper",
        "task_embedding_dim": 64,
        "projector": {"hidden_dim": 128, "output_dim": 64},
        "layer_norm": "conditional",
        "head": "generated",
        "share_layers": True,
        "embeddings": "concatenated",
        "shared_adapter": False,
        "learning_rate_multipliers": dict.fromkeys(HypernetworkMultipliers.model_fields, 1.0),
    }


@real_rows
@pytest.mark.parametrize("name", TASKS)
def test_no_row_is_in_two_splits(tasks: dict[str, Task], name: str) -> None:
    task = tasks[name]
    rows, counts = prepare({name: task}, DataSettings(source=str(GLUE)), Path("unused"), 0)
    texts = {
        split: {tuple(row[column] for column in task.text_columns) for row in table}
        for split, table in rows[name].items()
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    read = {"train", "validation"} if name != "mnli" else {"train", "validation_matched", "validation_mismatched"}
    total = sum(parquet.read_metadata(GLUE / name / f"{split}.parquet").num_rows for split in read)
    assert sum(count["rows"] + count["removed"] for count in counts[name].values()) == total
    if name in HELD_OUT:
        assert counts[name]["validation"]["rows"] + counts[name]["validation"]["removed"] == 1000
    if name == "cola":
        assert counts[name]["train"]["removed"] > 0  # published with sentences that are in both splits
