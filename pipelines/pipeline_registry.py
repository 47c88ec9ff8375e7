"""The pipelines by name.

Each pipeline except `times` includes its upstream nodes, so that it runs in a fresh clone; `transfer` also needs a
trained checkpoint. `--tags` selects a single stage.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline

from pipelines import (
    baselines,
    data_profile,
    evaluate,
    export,
    language,
    parameter_counts,
    preprocess,
    pretrain,
    report,
    settings_file,
    shared_base,
    times,
    train,
    transfer,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Return every pipeline by name, as Kedro expects it."""
    rows = language.create_pipeline() + preprocess.create_pipeline()
    trained = rows + train.create_pipeline()
    evaluated = trained + evaluate.create_pipeline()
    exported = evaluated + export.create_pipeline()
    adapted = rows + transfer.create_pipeline() + evaluate.create_pipeline() + export.create_pipeline()
    compared = rows + baselines.create_pipeline()
    counted = parameter_counts.create_pipeline()
    everything = exported + compared + counted + report.create_pipeline()
    return {
        "settings": settings_file.create_pipeline(),
        "language": language.create_pipeline(),
        "preprocess": rows,
        "data_profile": rows + data_profile.create_pipeline(),
        "pretrain": rows + pretrain.create_pipeline(),
        "train": trained,
        "evaluate": evaluated,
        "baselines": compared,
        "export": exported,
        "shared_base": evaluated + shared_base.create_pipeline(),
        "transfer": adapted,
        "parameter_counts": counted,
        "report": everything,
        "times": times.create_pipeline(),
        "__default__": everything,
    }
