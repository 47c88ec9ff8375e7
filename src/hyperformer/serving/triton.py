"""Write a model repository for the onnxruntime backend of NVIDIA's Triton Inference Server.

Each classification or regression task is a model that maps `input_ids` and `attention_mask` [batch, tokens] to the
graph's outputs. Clients encode texts with the tokenizer next to the model's configuration, as the manifest next to it
describes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import Manifest
from hyperformer.runtime.files import choose_graph, list_graph_files, read_bundle

CONFIGURATION, LABELS, VERSION = "config.pbtxt", "labels.txt", "1"
LARGEST_BATCH = 64
"""Triton's `max_batch_size`, in rows."""


def write_repository(
    bundles: Sequence[Path], repository: Path, int8: bool = False, allow_unpublished: bool = False
) -> list[str]:
    """Write a Triton model for each bundle of a classification or regression task; if one fails, write no model.

    Args:
        bundles: folders of exported tasks; generative tasks are skipped.
        repository: the folder to write; it must be an empty folder or not exist.
        int8: use the int8 graphs.
        allow_unpublished: also write models of bundles that are not published.

    Returns:
        The names of the models, which are the names of the bundles' folders.

    Raises:
        HyperFormerError: the repository is not an empty folder; a bundle is not published, was changed after the
            export, uses a shared base, has no graph of the requested precision, or has a label with a line break; or
            all tasks are generative.
    """
    if repository.exists() and (not repository.is_dir() or any(repository.iterdir())):
        raise HyperFormerError(f"{repository} is not an empty folder. Choose another path, or empty the folder.")
    repository.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=f".{repository.name}.") as temporary:
        partial = Path(temporary) / "repository"
        partial.mkdir()
        names = [name for bundle in bundles if (name := _write_model(bundle, partial, int8, allow_unpublished))]
        if not names:
            raise HyperFormerError(
                "all tasks are generative; expected at least one classification or regression task. Run generative "
                "tasks with optimum."
            )
        partial.chmod(0o755)
        if repository.exists():
            repository.rmdir()
        partial.rename(repository)
    return names


def _write_model(bundle: Path, repository: Path, int8: bool, allow_unpublished: bool) -> str | None:
    """Write a model and return its name, or None if the task is generative."""
    description, _ = read_bundle(bundle, allow_unpublished=allow_unpublished)
    if not description.labels:
        return None
    graph = choose_graph(bundle, description, int8)
    broken = [label for label in description.labels if "\n" in label]
    if broken:
        raise HyperFormerError(
            f"task {description.task!r} has the label {broken[0]!r}; expected labels without line breaks, because "
            f"{LABELS} has one label per line. Change the label and train the task again, or use hyperformer serve."
        )
    folder = repository / bundle.name
    (folder / VERSION).mkdir(parents=True)
    copies = {name: folder / VERSION / name for name in list_graph_files(graph, description.files)}
    copies |= {graph: folder / VERSION / manifest.GRAPH, manifest.TOKENIZER: folder / manifest.TOKENIZER}
    for name, copy in copies.items():
        shutil.copyfile(bundle / name, copy)
        if sha256(copy) != description.files[name]:
            raise HyperFormerError(f"{bundle / name} was replaced while it was copied. Run again.")
    description.write(folder)
    (folder / LABELS).write_bytes("".join(f"{label}\n" for label in description.labels).encode())
    (folder / CONFIGURATION).write_text(render_configuration(bundle.name, description), encoding="utf-8")
    return bundle.name


def render_configuration(name: str, description: Manifest) -> str:
    """Return the `config.pbtxt` of a model; its shapes exclude the batch dimension, as Triton expects."""
    inputs = ",\n".join(
        f'  {{ name: "{value}" data_type: TYPE_INT64 dims: [ -1 ] }}' for value in ("input_ids", "attention_mask")
    )
    count = len(description.labels)
    values = [
        f'  {{ name: "scores" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "{LABELS}" }}',
        f'  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "{LABELS}" }}',
    ]
    if (
        description.numbers
    ):  # Triton requires an axis besides the batch, which the graph's `value` [batch] does not have
        values.append('  { name: "value" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }')
    outputs = ",\n".join(values)
    return (
        f'name: {json.dumps(name, ensure_ascii=False)}\nbackend: "onnxruntime"\nmax_batch_size: {LARGEST_BATCH}\n'
        f"input [\n{inputs}\n]\noutput [\n{outputs}\n]\ndynamic_batching {{ }}\n"
    )
