"""The model card of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hyperformer.core.markdown import format_code, format_template
from hyperformer.model.checkpoint import TrainingRecord
from hyperformer.settings import BackboneSettings
from hyperformer.tasks import Task


def render_card(
    backbone: BackboneSettings,
    method: str,
    tasks: Mapping[str, Task],
    models: int,
    record: TrainingRecord | None = None,
) -> str:
    """Render the model card of a checkpoint in Markdown.

    Args:
        backbone: settings of the backbone.
        method: name of the method.
        tasks: the tasks by name.
        models: number of models of the checkpoint; a method that trains a model per task has several.
        record: the record of the training, if it is known.
    """
    name, task = next(iter(tasks.items()))
    row = json.dumps(dict.fromkeys(task.text_columns, "…"), ensure_ascii=False)
    quoted = json.dumps(name, ensure_ascii=False)
    chosen = f", task={quoted}" if models > 1 else ""
    lines = "\n".join(
        f"- {format_code(name)}: {task.settings.kind}, {format_template(task.settings.text)}"
        for name, task in tasks.items()
    )
    return f"""---
library_name: hyperformer
base_model: {backbone.path}
tags: [adapters, multi-task, {method}]
---
# {len(tasks)} task{"s" if len(tasks) > 1 else ""} on {backbone.path}

Trained with {method} by hyperformer. Only the trained weights are stored here. The backbone is
loaded from `{backbone.path}` (revision {backbone.revision or "not pinned"}), and its checksum is verified. If the
backbone has moved, pass its new path as `backbone=`.{_describe_training(record)}

```python
from hyperformer import MultiTaskModel

model = MultiTaskModel.from_pretrained("path/to/this/folder or Hub name"{chosen})
model.predict({quoted}, {row})
```

## Tasks

{lines}
"""


def _describe_training(record: TrainingRecord | None) -> str:
    """Return a paragraph with the steps and passes of the training; nothing if they are not known."""
    if record is None:
        return ""
    passes = ", ".join(f"{format_code(task)} {value:.1f}" for task, value in record.passes.items())
    return f"\n\nTrained for {record.steps:,} steps; passes over the training rows: {passes}."
