"""Model cards hold names, columns and labels with any characters."""

from __future__ import annotations

import ast

from hyperformer.core.manifest import FORMAT, Manifest
from hyperformer.export.card import render_card as render_bundle_card
from hyperformer.model.model_card import render_card
from hyperformer.settings import BackboneSettings, Tasks
from hyperformer.tasks import make_tasks

NAME = "a|`b` \"'{c} **d** <e>"
TEXT = '```\n{two\nlines|`"} {__proto__} {{x}}'
LABELS = ["a|b", "`c`\n# d", "{e}"]
BACKBONE = BackboneSettings(path="backbone", max_source_tokens=8, max_target_tokens=8)


def code_blocks(card: str) -> list[str]:
    return [block.partition("\n```")[0] for block in card.split("\n```python\n")[1:]]


def list_text(card: str) -> list[str]:
    """Return the lines outside of code blocks that start a heading or an item."""
    return [line for line in card.splitlines() if line.startswith(("# ", "## ", "- "))]


def test_the_card_of_a_bundle_names_everything_in_code() -> None:
    manifest = Manifest(
        format=FORMAT, task=NAME, kind="classification", text=TEXT, missing=None, labels=LABELS, numbers=None,
        max_source_tokens=8, opset=18, backbone="backbone", method="adapters", files={}, parity={"rows": 3.0}, int8={},
        metrics={"mean": 50.0}, baselines={"majority": 25.0}, published=True, made_from={},
    )  # fmt: skip
    card = render_bundle_card(manifest)
    assert list_text(card)[:3] == [
        f"# ``{NAME}``",
        '- Input: ```` ```\\n{two\\nlines|`"} {__proto__} {{x}} ````, truncated to 8 tokens',
        "- Output: `a|b`, `` `c`\\n# d ``, `{e}`",
    ]
    call, script = code_blocks(card)
    assert ast.literal_eval(call.partition('load(".")(')[2][:-1]) == {'two\nlines|`"': "…", "__proto__": "…"}
    assert str(LABELS) in script
    ast.parse(script)


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
