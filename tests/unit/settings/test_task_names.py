"""Names of tasks that would collide with other names in results or files are refused before work starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from toys import task_settings

from hyperformer.settings import Tasks


def name_tasks(*names: str) -> Tasks:
    return Tasks(dict.fromkeys(names, task_settings()["mood"]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mean"], "got the task name 'mean', which is the key of the mean over tasks in the results"),
        (["step"], "got the task name 'step', which is the key of the training step in the results"),
        *(
            ([name], f"got the task name '{name}', which is the name of a file beside the folders of tasks")
            for name in (
                "base.json",
                "model.onnx",
                "model.onnx.data",
                "manifest.json",
                "tokenizer.json",
                "work.json",
                "Model.ONNX",
            )
        ),
        (["ä" * 101], "of 202 bytes; expected at most 200. Rename the task"),
        (["mood", "Mood"], "got the task names 'mood' and 'Mood', which the file system of macOS does not distinguish"),
        (["\u00e4", "a\u0308"], "which the file system of macOS does not distinguish"),
    ],
)
def test_a_name_that_would_collide_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        name_tasks(*names)
    assert message in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    "name",
    ["Mean", "all", "loss", "metrics", "rows", "generation", "a.b", "a b", "ä", "%2F", "a:b", "{x}", "a.", " a ", "-x"],
)
def test_other_names_are_allowed(name: str) -> None:
    assert list(name_tasks(name, "x" * 200).root) == [name, "x" * 200]
