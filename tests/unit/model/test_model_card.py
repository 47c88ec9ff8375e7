"""Model cards hold names, columns and labels with any characters."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from hyperformer.core.manifest import FORMAT, Manifest
from hyperformer.export.card import render_card as render_bundle_card
from hyperformer.model.model_card import render_card
from hyperformer.settings import BackboneSettings, Tasks
from hyperformer.tasks import make_tasks

NAME = "a|`b` \"'{c} **d** <e>"
TEXT = '```\n{two\nlines|`"} {__proto__} {{x}}'
LABELS = ["a|b", "`c`\n# d", "{e}"]
MANIFEST = Manifest(
    format=FORMAT, task=NAME, kind="classification", text=TEXT, missing=None, labels=LABELS, numbers=None,
    max_source_tokens=8, opset=18, backbone="backbone", method="adapters", files={}, parity={"rows": 3.0}, int8={},
    openvino={}, metrics={"mean": 50.0}, baselines={"majority": 25.0}, published=True, made_from={},
)  # fmt: skip
BACKBONE = BackboneSettings(path="backbone", max_source_tokens=8, max_target_tokens=8)


def code_blocks(card: str) -> list[str]:
    return [block.partition("\n```")[0] for block in card.split("\n```python\n")[1:]]


def list_text(card: str) -> list[str]:
    """Return the lines outside of code blocks that start a heading or an item."""
    return [line for line in card.splitlines() if line.startswith(("# ", "## ", "- "))]


def test_the_card_of_a_bundle_names_everything_in_code() -> None:
    card = render_bundle_card(MANIFEST)
    assert list_text(card)[:3] == [
        f"# ``{NAME}``",
        '- Input: ```` ```\\n{two\\nlines|`"} {__proto__} {{x}} ````, truncated to 8 tokens',
        "- Output: `a|b`, `` `c`\\n# d ``, `{e}`",
    ]
    call, script = code_blocks(card)
    assert ast.literal_eval(call.partition('load(".")(')[2][:-1]) == {'two\nlines|`"': "…", "__proto__": "…"}
    assert str(LABELS) in script
    ast.parse(script)


@pytest.mark.parametrize(
    ("baselines", "line"),
    [
        ({"majority": 25.0, "tfidf": 40.0}, "`tfidf`, mean test metric 40.00; the model is above it"),
        ({"majority": 25.0, "tfidf": 50.0}, "`tfidf`, mean test metric 50.00; the model is equal to it"),
        ({"frozen": 60.5, "tfidf": 40.0}, "`frozen`, mean test metric 60.50; the model is **below** it"),
    ],
)
def test_the_card_of_a_bundle_compares_the_model_with_its_best_baseline(baselines: dict[str, float], line: str) -> None:
    card = render_bundle_card(replace(MANIFEST, baselines=baselines))
    assert f"- Best baseline: {line}\n" in card
    assert "published" not in card


def test_the_card_of_an_unpublished_bundle_says_so_and_its_code_loads_it() -> None:
    card = render_bundle_card(replace(MANIFEST, published=False))
    assert "**Not published**: the model is no better than the majority baseline on validation" in card
    assert 'load(".", allow_unpublished=True)(' in code_blocks(card)[0]


def test_the_card_of_a_checkpoint_names_everything_in_code() -> None:
    settings = {
        "text": TEXT,
        "kind": "classification",
        "label_column": "label",
        "labels": dict(enumerate(LABELS)),
        "metrics": ["accuracy"],
    }
    card = render_card(BACKBONE, "adapters", make_tasks(Tasks({NAME: settings})), 2)
    assert f"- ``{NAME}``: classification, ```` ```\\n{{two" in card
    call = code_blocks(card)[0].splitlines()[-1]
    assert ast.literal_eval(call.removeprefix("model.predict"))[0] == NAME
    assert NAME in code_blocks(card)[0].replace('\\"', '"').splitlines()[-2]


@pytest.mark.parametrize(("bf16", "precision"), [(1.0, "bf16"), (0.0, "float32")])
def test_the_card_of_a_bundle_has_openvinos_metric_and_changed_labels(bf16, precision):
    result = {"metric": 80.5, "float32": 81.0, "rows": 200, "changed": 3, "ties": 1, "bf16": bf16, "published": 0.0}
    line = f"- OpenVINO in {precision} scores 80.50 on validation, and predicts another label on 3 of 200 rows; it"
    assert line in render_bundle_card(replace(MANIFEST, openvino=result))
