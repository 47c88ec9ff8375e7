"""The JavaScript module reads the same number of characters of a text as the Python runtime."""

from __future__ import annotations

import json
import subprocess

from test_javascript import JAVASCRIPT, pytestmark  # noqa: F401  skips without Node

from hyperformer.core.prefix import CHARACTERS
from hyperformer.runtime import load

MODULE = """
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";
import { Bundle } from "./bundle.mjs";
const folder = process.argv[1], json = (file) => JSON.parse(readFileSync(`${folder}/${file}`));
const tokenizer = new Tokenizer({ ...json("tokenizer.json"), added_tokens: [] }, {});
const bundle = new Bundle(null, null, tokenizer, json("manifest.json"));
const rows = JSON.parse(readFileSync(0));
console.log(JSON.stringify(rows.map((row) => bundle.encode(row))));
"""


def encode(folder, rows):
    """Return the token ids of rows and whether each row was truncated, from the module without a session."""
    command = ["node", "--input-type=module", "-e", MODULE, str(folder)]
    done = subprocess.run(
        command, input=json.dumps(rows), capture_output=True, text=True, timeout=120, check=False, cwd=JAVASCRIPT
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return [answer["ids"] for answer in answers], [answer["truncated"] for answer in answers]


def long_texts(limit):
    return [
        "a film",
        "a" * (limit - 11),  # after "sentence: "
        "a" * (limit - 10),
        "a" * (limit - 9) + " film",
        "😀" * limit + " film",
        " " * 2 * limit + "film",
        "the film is dull " * limit,
        "\u200b" * 3 * limit + "film",
    ]


def test_a_text_has_the_tokens_of_the_runtime(bundles):
    bundle = load(bundles / "mood")
    rows = [{"sentence": text} for text in long_texts(CHARACTERS * bundle.manifest.max_source_tokens)]
    ids, truncated = bundle.encode([bundle.source(row) for row in rows])
    assert encode(bundle.folder, rows) == (ids, truncated)


def test_two_texts_have_the_tokens_of_the_runtime(encoder_bundles):
    bundle = load(encoder_bundles / "likeness")
    texts = long_texts(CHARACTERS * bundle.manifest.max_source_tokens)
    rows = [{"a": first, "b": second} for first in texts for second in ("a film", texts[-2], texts[4])]
    ids, truncated = bundle.encode([bundle.source(row) for row in rows])
    assert encode(bundle.folder, rows) == (ids, truncated)
