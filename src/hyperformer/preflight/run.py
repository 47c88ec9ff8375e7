"""The checks of a run, in the order in which their errors help most."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.settings import Settings


def check_run(
    settings: Settings,
    inputs: Collection[str],
    outputs: Collection[str],
    paths: Mapping[str, str | None],
    missing: Sequence[str],
) -> None:
    """Check that the artifacts and settings that a run uses are present and compatible.

    Only what the run uses is checked and imported, so that a run without a model loads neither a model nor torch.

    Args:
        settings: All settings.
        inputs: Artifacts and settings that the run reads and does not create; a setting's name begins with `params:`.
        outputs: Artifacts that the run creates.
        paths: Path of each artifact in `inputs`, of `checkpoint` and of `transfer_starts`; None: it has no path.
        missing: Artifacts in `inputs` that do not exist.

    Raises:
        HyperFormerError: The run cannot succeed.
    """
    from hyperformer.preflight.export import check_label_scoring, check_openvino, check_task_names
    from hyperformer.tasks import make_tasks

    _check_history(inputs, outputs, paths)
    tasks = make_tasks(settings.tasks)
    if "language_rows" in missing:
        from hyperformer.data.sources import is_embedded

        if not any(is_embedded(task, settings.data) for task in tasks.values()):  # no task reads them
            missing = [name for name in missing if name != "language_rows"]
    _check_inputs(paths, missing)
    if "params:export" in inputs:
        check_task_names(settings.export, tasks)
    if "checkpoint" in inputs and paths["checkpoint"] is not None:
        from hyperformer.preflight.checkpoint import check_checkpoint

        starts = paths["transfer_starts"]
        check_checkpoint(settings, paths["checkpoint"], adapted=starts is not None and Path(starts).exists())
    if "params:data" in inputs:
        from hyperformer.data.sources import check_sources

        check_sources(tasks, settings.data)
    if ("tokens" in inputs or "tokens" in outputs) and "pretrained_backbone" not in outputs:
        from hyperformer.preflight.model import check_model

        check_model(settings)
    if "params:transfer" in inputs:
        from hyperformer.preflight.transfer import check_transfer

        check_transfer(settings, paths["checkpoint"])
    if "shared_base" in outputs:
        from hyperformer.export.shared_base import check_method

        check_method(settings.chosen_method.name)
    if "bundles" in outputs or "shared_base" in outputs:
        check_label_scoring(settings.evaluation, tasks)
    if "bundles" in outputs:
        check_openvino(settings.export)
        from hyperformer.export import check_targets

        check_targets(tasks)


def _check_history(inputs: Collection[str], outputs: Collection[str], paths: Mapping[str, str | None]) -> None:
    """Refuse to report or to replace a checkpoint that the pipeline `transfer` wrote."""
    starts = paths["transfer_starts"]
    if starts is None or not Path(starts).exists():
        return
    for names, reason in ((inputs, "it has no history to report"), (outputs, "training would replace it")):
        if "history" in names:
            raise HyperFormerError(
                f"the checkpoint in {paths['checkpoint']} was adapted by the pipeline transfer, and {reason}. "
                f"Use another environment (--env), or remove {starts} to train here from scratch."
            )


def _check_inputs(paths: Mapping[str, str | None], missing: Sequence[str]) -> None:
    if missing:
        path = paths[missing[0]]
        if path is None:
            raise HyperFormerError(
                f"{missing[0]} has no path in the catalog; expected `filepath` in its entry. Add it."
            )
        raise HyperFormerError(
            f"{missing[0]} is missing; expected it at {path}. Run the pipeline that creates it first, "
            "or run this one without --tags or --nodes."
        )
