"""The record of a training, in the folder of its resume states until the checkpoint has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hyperformer.core.files import is_damage, write_text
from hyperformer.model.checkpoint import TrainingRecord
from hyperformer.training.states import damaged_file_error

RECORD = "record.json"
"""File of the record of a model's training."""


def write_record(state: Path, record: TrainingRecord) -> None:
    """Write the record of a model's training."""
    write_text(state / RECORD, json.dumps(asdict(record)))


def read_record(state: Path) -> TrainingRecord:
    """Read the record that `write_record` wrote."""
    path = state / RECORD
    try:
        return TrainingRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        if not is_damage(error):
            raise
        raise damaged_file_error(path, error) from None


def merge_records(records: Sequence[TrainingRecord]) -> TrainingRecord:
    """Merge the records of a checkpoint's models, which were trained one after another."""
    passes = {task: value for record in records for task, value in record.passes.items()}
    return TrainingRecord(sum(record.steps for record in records), records[0].threads, passes)
