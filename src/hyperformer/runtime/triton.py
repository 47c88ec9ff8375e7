"""Bundles as a model repository of NVIDIA's Triton Inference Server, for its onnxruntime backend.

Each task is a model of token ids: `input_ids`, `attention_mask` [batch, tokens] → the graph's outputs. Who asks makes
the ids with the tokenizer that lies beside the configuration, as the task's manifest says.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hyperformer import manifest
from hyperformer.manifest import Manifest
from hyperformer.runtime.files import graph_files, graph_name, read_bundle
from hyperformer.types import HyperFormerError

CONFIGURATION, LABELS, VERSION = "config.pbtxt", "labels.txt", "1"
LARGEST_BATCH = 64


def write_repository(bundles: Sequence[Path], repository: Path, int8: bool = False) -> list[str]:
    """Writes a model for each bundle of a closed task, all or none.

    Args:
        bundles: folders that an export wrote.
        repository: where to; it must not be there yet, or be empty.
        int8: takes the graphs in int8.
    Returns:
        The names of the models.
    Raises:
        HyperFormerError: the repository holds something, a bundle is not what was exported, is on a shared base, or
            lacks the graph, or none is of a closed task.
    """
    if repository.exists() and (not repository.is_dir() or any(repository.iterdir())):
        raise HyperFormerError(f"{repository} is not an empty folder; name another, or clear it")
    repository.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=f".{repository.name}.") as place:
        half = Path(place) / "repository"
        half.mkdir()
        names = [name for bundle in bundles if (name := _write_model(bundle, half, int8))]
        if not names:
            raise HyperFormerError(
                "no bundle has a classifier graph; Triton's repository is for tasks of given answers"
            )
        half.chmod(0o755)
        if repository.exists():
            repository.rmdir()
        half.rename(repository)
    return names


def _write_model(bundle: Path, repository: Path, int8: bool) -> str | None:
    """Writes one model; None where the task writes its answers."""
    found, _ = read_bundle(bundle)
    if not found.labels:
        return None
    graph = graph_name(bundle, found, int8)
    folder = repository / bundle.name
    (folder / VERSION).mkdir(parents=True)
    copies = {name: folder / VERSION / name for name in graph_files(graph, found.files)}
    copies |= {graph: folder / VERSION / manifest.GRAPH, manifest.TOKENIZER: folder / manifest.TOKENIZER}
    for name, copy in copies.items():
        shutil.copyfile(bundle / name, copy)
        if manifest.sha256(copy) != found.files[name]:
            raise HyperFormerError(f"{bundle / name} was replaced while it was copied; run again")
    found.write(folder)
    (folder / LABELS).write_text("".join(f"{label}\n" for label in found.labels), encoding="utf-8")
    (folder / CONFIGURATION).write_text(configuration(bundle.name, found), encoding="utf-8")
    return bundle.name


def configuration(name: str, found: Manifest) -> str:
    """A model's `config.pbtxt`; dimensions are without the batch's."""
    inputs = ",\n".join(
        f'  {{ name: "{one}" data_type: TYPE_INT64 dims: [ -1 ] }}' for one in ("input_ids", "attention_mask")
    )
    count = len(found.labels)
    outputs = [
        f'  {{ name: "scores" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "{LABELS}" }}',
        f'  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "{LABELS}" }}',
    ]
    if found.numbers:  # one number a row, without an axis of its own
        outputs.append('  { name: "value" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }')
    given = ",\n".join(outputs)
    return (
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {LARGEST_BATCH}\n'
        f"input [\n{inputs}\n]\noutput [\n{given}\n]\ndynamic_batching {{ }}\n"
    )
