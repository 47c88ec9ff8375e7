"""The pipelines by name.

Each pipeline except `times` includes its upstream nodes, so that it runs in a fresh clone; `transfer` also needs a
trained checkpoint. `--tags` selects a single stage.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline

from pipelines import (
    baselines,
    check_quality,
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
    scored = baselines.create_pipeline(after=["metrics"])
    exported = evaluated + scored + export.create_pipeline()
    adapted = rows + transfer.create_pipeline() + evaluate.create_pipeline() + scored + export.create_pipeline()
    counted = parameter_counts.create_pipeline()
    everything = exported + counted + report.create_pipeline() + check_quality.create_pipeline()
    return {
        "settings": settings_file.create_pipeline(),
        "language": language.create_pipeline(),
        "preprocess": rows,
        "data_profile": rows + data_profile.create_pipeline(),
        "pretrain": rows + pretrain.create_pipeline(),
        "train": trained,
        "evaluate": evaluated,
        "baselines": rows + baselines.create_pipeline(),
        "export": exported,
        "shared_base": evaluated + scored + shared_base.create_pipeline(),
        "transfer": adapted,
        "parameter_counts": counted,
        "report": everything,
        "check_quality": everything,
        "times": times.create_pipeline(),
        "__default__": everything,
    }
