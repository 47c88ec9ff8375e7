"""The model card of a bundle, with the task, its metrics and code that runs the bundle."""

from __future__ import annotations

import json

from hyperformer.core import text
from hyperformer.core.manifest import ADAPTER, Manifest
from hyperformer.core.markdown import format_code, format_template

CLASSIFY = """from tokenizers import Tokenizer
import numpy as np, onnxruntime

tokenizer = Tokenizer.from_file("{root}tokenizer.json")
tokenizer.encode_special_tokens = True
tokenizer.enable_truncation({longest})
ids = np.array([tokenizer.encode({source}).ids])
session = onnxruntime.InferenceSession("{root}model.onnx")
inputs = {{"input_ids": ids, "attention_mask": np.ones_like(ids)}}
{options}scores, probabilities = session.run(["scores", "probabilities"], inputs{with_options})
print({labels}[probabilities[0].argmax()])
"""
LOAD_ADAPTER = """adapter, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
adapter.Load("task.onnx_adapter")
options.add_active_adapter(adapter)
"""
PRINT_VALUE = """print(session.run(["value"], inputs)[0][0])
"""
GENERATE = """from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import AutoTokenizer

model, tokenizer = ORTModelForSeq2SeqLM.from_pretrained("generation"), AutoTokenizer.from_pretrained("generation")
ids = model.generate(**tokenizer({source}, return_tensors="pt", return_token_type_ids=False))
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""


def render_card(manifest: Manifest) -> str:
    """Return the model card in Markdown; its Python code runs in the bundle's folder."""
    row = dict.fromkeys(text.find_columns(manifest.text), "…")
    source = text.render(manifest.text, row)
    source = repr(source) if isinstance(source, str) else ", ".join(map(repr, source))
    shared = ADAPTER in manifest.files
    print_value = f"print((probabilities[0] * {manifest.numbers}).sum())\n" if shared else PRINT_VALUE
    template = (CLASSIFY + (print_value if manifest.numbers else "")) if manifest.labels else GENERATE
    code = template.format(
        source=source,
        longest=manifest.max_source_tokens,
        labels=manifest.labels,
        root="../" if shared else "",
        options=LOAD_ADAPTER if shared else "",
        with_options=", options" if shared else "",
    )
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in manifest.metrics.items() if name != "collapsed")
    return f"""---
library_name: onnx
base_model: {manifest.backbone}
tags: [hyperformer, {manifest.kind}]
---
# {format_code(manifest.task)}

A {manifest.kind} task on the backbone `{manifest.backbone}`, trained with the method `{manifest.method}`.
{_describe_files(manifest)}
{_describe_publication(manifest)}
- Input: {format_template(manifest.text)}, truncated to {manifest.max_source_tokens} tokens
- Output: {", ".join(map(format_code, manifest.labels)) or "generated text"}
- Test metrics (percent): {metrics}
{_describe_baselines(manifest)}- Verified against PyTorch on {manifest.parity["rows"]:.0f} validation rows
{_describe_int8(manifest)}{_describe_openvino(manifest)}
Run it with hyperformer:

```python
from hyperformer.runtime import load

load("."{"" if manifest.published else ", allow_unpublished=True"})({json.dumps(row, ensure_ascii=False)})
```

Or without hyperformer:

```python
{code}```
"""


def _describe_files(manifest: Manifest) -> str:
    if ADAPTER in manifest.files:
        return f"`{ADAPTER}` holds the task's weights; all tasks share the graph `../model.onnx`."
    return "It is exported as plain ONNX, with all of its weights."


def _describe_publication(manifest: Manifest) -> str:
    if manifest.published:
        return ""
    return (
        "\n**Not published**: the model is no better than the majority baseline on validation, so that the bundle is "
        "loaded only with `allow_unpublished=True`.\n"
    )


def _describe_baselines(manifest: Manifest) -> str:
    """Return the line of the best baseline on test; empty if there are no baselines."""
    if not manifest.baselines:
        return ""
    best = max(manifest.baselines, key=manifest.baselines.__getitem__)
    baseline, model = manifest.baselines[best], manifest.metrics["mean"]
    comparison = "**below** it" if model < baseline else "equal to it" if model == baseline else "above it"
    return f"- Best baseline: {format_code(best)}, mean test metric {baseline:.2f}; the model is {comparison}\n"


def _describe_int8(manifest: Manifest) -> str:
    if not manifest.int8:
        return ""
    graph = "`model.int8.onnx`" if manifest.int8["published"] else "The int8 graph (not published)"
    metric, float32 = manifest.int8["metric"], manifest.int8["float32"]
    return f"- {graph} scores {metric:.2f} on validation; the float32 graph scores {float32:.2f}\n"


def _describe_openvino(manifest: Manifest) -> str:
    result = manifest.openvino
    if not result:
        return ""
    precision = "bf16" if result["bf16"] else "float32"
    note = "" if result["published"] else "; it differs too much to be used"
    return (
        f"- OpenVINO in {precision} scores {result['metric']:.2f} on validation, and predicts another label on "
        f"{result['changed']:.0f} of {result['rows']:.0f} rows{note}\n"
    )
