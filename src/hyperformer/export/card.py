"""The card of a bundle: what it is, how good, and the lines that use it."""

from __future__ import annotations

import json

from hyperformer import text
from hyperformer.manifest import ADAPTER, Manifest

LINES = """from tokenizers import Tokenizer
import numpy as np, onnxruntime

tokenizer = Tokenizer.from_file("{root}tokenizer.json")
tokenizer.encode_special_tokens = True
tokenizer.enable_truncation({longest})
ids = np.array([tokenizer.encode({source}).ids])
session = onnxruntime.InferenceSession("{root}model.onnx")
given = {{"input_ids": ids, "attention_mask": np.ones_like(ids)}}
{options}scores, probabilities = session.run(["scores", "probabilities"], given{with_options})
print({labels}[probabilities[0].argmax()])
"""
OPTIONS = """adapter, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
adapter.Load("task.onnx_adapter")
options.add_active_adapter(adapter)
"""
GRADED = """print(session.run(["value"], given)[0][0])
"""
WRITING = """from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import AutoTokenizer

model, tokenizer = ORTModelForSeq2SeqLM.from_pretrained("generation"), AutoTokenizer.from_pretrained("generation")
ids = model.generate(**tokenizer({source}, return_tensors="pt", return_token_type_ids=False))
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""


def text_of(made: Manifest) -> str:
    """The card in Markdown; its Python runs in the bundle's folder."""
    row = dict.fromkeys(text.columns(made.text), "…")
    source = text.render(made.text, row)
    source = repr(source) if isinstance(source, str) else ", ".join(map(repr, source))
    shared = ADAPTER in made.files
    graded = f"print((probabilities[0] * {made.numbers}).sum())\n" if shared else GRADED
    lines = (LINES + (graded if made.numbers else "")) if made.labels else WRITING
    code = lines.format(
        source=source,
        longest=made.max_source_tokens,
        labels=made.labels,
        root="../" if shared else "",
        options=OPTIONS if shared else "",
        with_options=", options" if shared else "",
    )
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in made.metrics.items() if name != "collapsed")
    return f"""---
library_name: onnx
base_model: {made.backbone}
tags: [hyperformer, {made.kind}]
---
# {made.task}

A {made.kind} task of `{made.backbone}`, trained with {made.method} and {_form(made)}.
Test split, percent: {metrics}. Compared with torch on {made.parity["rows"]:.0f} validation rows.

- reads: {text.named(made.text)}, up to {made.max_source_tokens} tokens
- answers: {", ".join(made.labels) or "any text"}
{_int8(made)}
```python
from hyperformer.runtime import load

load(".")({json.dumps(row, ensure_ascii=False)})
```
or without hyperformer:
```python
{code}```
"""


def _form(made: Manifest) -> str:
    return "put beside the base of all its tasks, `../model.onnx`" if ADAPTER in made.files else "baked into plain ONNX"


def _int8(made: Manifest) -> str:
    if not made.int8:
        return ""
    kept = "`model.int8.onnx`" if made.int8["published"] else "in int8 (not published)"
    return f"- {kept}: {made.int8['metric']:.2f} on validation, where float32 has {made.int8['float32']:.2f}\n"
