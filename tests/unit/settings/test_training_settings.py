"""The length and the warm-up of a training."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError
from toys import train_settings

BY_EPOCHS = {"epochs": 2, "steps": None, "warmup_steps": None, "evaluate_every": None, "warmup_ratio": 0.1}


@pytest.mark.parametrize(
    "changes", [{}, BY_EPOCHS, {"warmup_steps": None, "warmup_ratio": 0.0}, {"evaluate_every": None}]
)
def test_a_training_counts_epochs_or_steps(changes):
    assert train_settings(**changes).epochs == changes.get("epochs")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"epochs": 2},
            r"got both epochs and steps; expected one of them\. Set epochs or steps, and the other to null",
        ),
        ({"steps": None}, r"got neither epochs nor steps; expected one of them\."),
        ({**BY_EPOCHS, "warmup_steps": 3}, r"warmup_steps cannot be combined with epochs; .* Remove warmup_steps, or"),
        ({**BY_EPOCHS, "evaluate_every": 3}, r"evaluate_every cannot be combined with epochs; expected warmup_ratio"),
        ({**BY_EPOCHS, "warmup_ratio": None}, r"got neither warmup_ratio nor warmup_steps; .* Set warmup_ratio$"),
        ({"warmup_ratio": 0.1}, r"got both warmup_ratio and warmup_steps; .* Set one, and the other to null"),
        ({"warmup_steps": None}, r"got neither warmup_ratio nor warmup_steps; .* Set one, and the other to null"),
        ({"min_passes": -1}, "greater than or equal to 0"),
        ({**BY_EPOCHS, "epochs": 0}, "greater than 0"),
    ],
)
def test_an_ambiguous_or_missing_length_is_refused(changes, message):
    with pytest.raises(ValidationError) as caught:
        train_settings(**changes)
    (error,) = caught.value.errors()
    assert re.search(message, error["msg"])
