"""The schedule of a training in steps."""

from __future__ import annotations

import pytest
from toys import train_settings

from hyperformer.training.schedule import schedule_training


def schedule(size, share=1.0, **changes):
    settings = schedule_training(train_settings(**changes), size, share)
    return settings.steps, settings.warmup_steps, settings.evaluate_every


EPOCHS = {"steps": None, "warmup_steps": None, "evaluate_every": None, "warmup_ratio": 0.1, "batch_size": 32}


@pytest.mark.parametrize(
    ("epochs", "rows", "expected"),
    [
        (1, 3200, (100, 10, 100)),
        (3, 3201, (301, 30, 101)),  # 300.1 batches
        (4, 1000, (125, 12, 32)),
        (2, 1, (1, 0, 1)),
    ],
)
def test_epochs_count_all_rows_and_are_validated_once_each(epochs, rows, expected):
    assert schedule(rows, epochs=epochs, **EPOCHS) == expected


def test_with_a_token_budget_an_epoch_is_counted_in_source_tokens():
    assert schedule(10_000, **{**EPOCHS, "epochs": 2, "batch_size": None, "batch_tokens": 300}) == (67, 7, 34)


def test_steps_do_not_depend_on_the_rows():
    assert schedule(10, steps=200, warmup_steps=20, evaluate_every=50) == (200, 20, 50)
    assert schedule(10_000, steps=200, warmup_steps=20, evaluate_every=50) == (200, 20, 50)


def test_a_warm_up_ratio_counts_steps_too():
    assert schedule(10, steps=200, warmup_steps=None, warmup_ratio=0.06, evaluate_every=50) == (200, 12, 50)


@pytest.mark.parametrize(("steps", "expected"), [(200, 20), (2000, 200), (95, 10), (3, 1)])
def test_without_an_interval_a_run_has_at_most_ten_validations(steps, expected):
    assert schedule(10, steps=steps, evaluate_every=None)[2] == expected


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, (50, 5, 12)), (0.5, (100, 10, 25)), (0.001, (1, 0, 1)), (1.0, (200, 20, 50))]
)
def test_a_model_of_several_gets_its_share_of_the_steps(share, expected):
    assert schedule(10, share, steps=200, warmup_steps=20, evaluate_every=50) == expected


def test_a_model_of_several_is_validated_once_an_epoch_of_the_run():
    assert schedule(3200, 0.3, epochs=4, **EPOCHS) == (120, 12, 30)
