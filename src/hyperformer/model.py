"""The multi-task model: a backbone, a method and tasks, with training loss, inference and checkpoints."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from hyperformer import backbones, manifest, methods, tasks, text
from hyperformer.backbones import AnswerHeads, Answers
from hyperformer.config import (
    AdapterSettings,
    BackboneSettings,
    EvaluationSettings,
    Methods,
    MethodSettings,
    Tasks,
    rename_settings,
)
from hyperformer.tasks import Task
from hyperformer.types import Answer, Example, HeadWeights, HyperFormerError, Scores, Scoring, Source

CONFIGURATION = "configuration.json"
"""File of a checkpoint's settings."""
WEIGHTS = "trained.safetensors"
"""File of a checkpoint's trained tensors."""
CARD = "README.md"
"""File of a checkpoint's model card."""
DEFAULT_EVALUATION = EvaluationSettings(batch_size=64)
"""Default settings of inference."""
LARGE_BATCH_TOKENS = 2048
"""Minimum number of tokens of a training batch that is split into micro-batches on a CPU, padding included."""
MICRO_BATCH_TOKENS = 512
"""Approximate number of tokens of a micro-batch on a CPU, padding included; more if `MAX_MICRO_BATCHES` is reached."""
MAX_MICRO_BATCHES = 8
"""Maximum number of micro-batches that a CPU splits a batch into."""
T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


class MultiTaskModel(nn.Module):
    """A backbone with the trained weights of a method, which predicts the answers of all tasks.

    The backbone is frozen except for its layer norms, unless the method trains the whole backbone. If the method trains
    a separate model for each group of tasks, the groups still share one backbone in memory: the trained tensors of a
    group are loaded when one of its tasks is used.

    Args:
        backbone: settings of the backbone to load.
        method: name and settings of the method.
        settings: settings of the tasks.
        label_smoothing: label smoothing of the loss.
        group: index of the group of tasks that is trained.
        groups: names of the tasks of each group; None: the groups that the method defines.
    """

    members: Tensor

    def __init__(
        self,
        backbone: BackboneSettings,
        method: MethodSettings,
        settings: Tasks,
        label_smoothing: float = 0.0,
        group: int = 0,
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.backbone_settings, self.method_settings, self.task_settings = backbone, method, settings
        self.tasks: dict[str, Task] = tasks.make_tasks(settings)
        self.label_smoothing = label_smoothing
        self.groups = [list(names) for names in groups or methods.group_tasks(method, list(self.tasks))]
        self.backbone = backbones.load(backbone)
        self.answer_heads = _build_answer_heads(self.backbone, self.tasks)
        rows = self.answer_heads.rows if self.answer_heads else 0
        self.method = methods.make_method(method, self.groups[group], self.backbone.sites(), self.backbone.width, rows)
        if isinstance(method.settings, AdapterSettings):
            self.backbone.insert_adapters(self.method.sites, method.settings.activation)
        if not self.method.trains_backbone:
            self.backbone.freeze()
        self.answers = {name: self._encode_answers(name) for name, task in self.tasks.items() if task.answers}
        generative = [name for name in self.tasks if name not in self.answers]
        if generative and not self.backbone.is_seq2seq:
            raise HyperFormerError(
                f"task {generative[0]!r} is generative, but backbone {backbone.path!r} is an encoder. Use a seq2seq "
                "backbone or remove the task."
            )
        names = list(self.tasks)
        members = torch.tensor([[names.index(name) for name in group] for group in self.groups])
        self.register_buffer("members", members, persistent=False)  # [groups, tasks per group]
        self._group = group
        self._trained: list[dict[str, Tensor]] = []

    def _encode_answers(self, task: str) -> Answers:
        """Encode the answers of a classification or regression task.

        Raises:
            HyperFormerError: two answers encode to the same tokens, or an answer is longer than `max_target_tokens`.
        """
        answers = self.backbone.encode_answers(self.tasks[task].answers, self.tasks[task].numbers)
        limit = self.backbone_settings.max_target_tokens
        if limit is not None and answers.longest > limit:
            raise HyperFormerError(
                f"task {task!r}: an answer has {answers.longest} tokens; expected at most {limit}, "
                "backbone.max_target_tokens. Raise the setting or choose shorter answers."
            )
        return answers

    def load_trained(self, trained: Sequence[dict[str, Tensor]]) -> None:
        """Load the trained tensors of each group, in the order of the groups; see `restore`."""
        for tensors in trained:
            restore(self, tensors)
        self._group, self._trained = len(trained) - 1, list(trained)

    def task_id(self, task: str) -> int:
        """Return the id of a task in the batches of its group."""
        return self.groups[self._group_of(task)].index(task)

    def _group_of(self, task: str) -> int:
        if task not in self.tasks:
            raise HyperFormerError(f"unknown task {task!r}; expected one of {', '.join(self.tasks)}.")
        return next(index for index, group in enumerate(self.groups) if task in group)

    def _activate(self, task: str) -> Tensor:
        """Load the trained tensors of the task's group, and return the task's id in its group as a tensor [1]."""
        group = self._group_of(task)
        if group != self._group and self._trained:
            restore(self, self._trained[group])
            self._group = group
        return torch.tensor([self.task_id(task)], device=next(self.parameters()).device)

    def forward(self, task_ids: Tensor, **tensors: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch of any mix of tasks: `row_losses` [B] and their mean, `loss`.

        Args:
            task_ids: id of each row's task in its group, [B].
            **tensors: the backbone's inputs by name.
        """
        losses = self.row_losses(task_ids, tensors)
        return {"loss": losses.mean(), "row_losses": losses}

    def row_losses(self, task_ids: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the loss of each row with its task's weights, [B]; on a CPU, large batches are split by length."""
        present, rows = task_ids.unique(return_inverse=True)
        weights, head = self.method.weights(present), self._head(present)
        lengths = tensors["attention_mask"].sum(1)
        tokens = tensors["attention_mask"].numel()
        is_large = (
            tokens >= LARGE_BATCH_TOKENS and lengths.device.type == "cpu"
        )  # on a GPU, splitting costs more than padding
        count = min(tokens // MICRO_BATCH_TOKENS, MAX_MICRO_BATCHES) if is_large else 1
        order = lengths.argsort(stable=True) if count > 1 else torch.arange(len(lengths), device=lengths.device)
        losses = []
        for indices in order.chunk(count):
            micro_batch = {name: tensor[indices] for name, tensor in tensors.items()}
            longest = int(lengths[indices].max())
            micro_batch |= {name: micro_batch[name][:, :longest] for name in ("input_ids", "attention_mask")}
            with self.backbone.active_weights.use(weights, rows[indices] if len(present) > 1 else None, head):
                losses.append(self.backbone.loss(micro_batch, self.label_smoothing))
        return torch.cat(losses)[order.argsort()]

    def _head(self, task_ids: Tensor) -> HeadWeights | None:
        """Return the heads of tasks [n] of the active group; None if the backbone needs no heads."""
        heads = self.method.head(task_ids)
        if heads is None or self.answer_heads is None:
            return None
        return self.answer_heads(heads, self.members[self._group][task_ids])

    def scores(
        self, task: str, sources: Sequence[Source], batch_size: int, scoring: Scoring = "constrained"
    ) -> list[Scores]:
        """Return the log-probabilities of a task's answers for each source; the task must not be generative."""

        def score(input_ids: Tensor, attention_mask: Tensor) -> list[Scores]:
            values = self.backbone.scores(input_ids, attention_mask, self.answers[task], scoring)  # [B, A]
            return [Scores(task, tuple(row)) for row in values.tolist()]

        return self._run_batches(task, sources, batch_size, score)

    def generate(self, task: str, sources: Sequence[Source], settings: EvaluationSettings) -> list[str]:
        """Generate a text for each source."""
        limit = self.backbone_settings.max_target_tokens
        if task in self.answers:
            limit = self.answers[task].longest  # a longer text cannot be an answer of the task
        assert limit is not None  # a seq2seq backbone requires it

        def generate(input_ids: Tensor, attention_mask: Tensor) -> list[str]:
            return self.backbone.generate(input_ids, attention_mask, limit, settings.num_beams)

        return self._run_batches(task, sources, settings.batch_size, generate)

    @torch.no_grad()
    def _run_batches(
        self, task: str, sources: Sequence[Source], batch_size: int, run: Callable[[Tensor, Tensor], list[T]]
    ) -> list[T]:
        """Return the results of `run` for each source with the task's weights, in the order of the sources."""
        self.eval()
        task_id = self._activate(task)
        with self.backbone.active_weights.use(self.method.weights(task_id), None, self._head(task_id)):
            return _run_batches(self.backbone, sources, self.backbone_settings, batch_size, run)

    def source(self, task: str, row: Mapping[str, Any]) -> Source:
        """Render a row by the task's template into the input of the backbone's tokenizer."""
        return text.render(self.backbone.format_template(self.tasks[task].settings.text), row)

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the backbone supports the settings.

        Raises:
            HyperFormerError: `label_scoring` is 'generated', but the backbone is an encoder.
        """
        if settings.label_scoring == "generated" and not self.backbone.is_seq2seq:
            raise HyperFormerError(
                f"evaluation.label_scoring is 'generated', but backbone {self.backbone_settings.path!r} is an encoder. "
                "Use 'constrained' or a seq2seq backbone."
            )

    def answer(
        self, task: str, rows: Sequence[Mapping[str, Any]], settings: EvaluationSettings = DEFAULT_EVALUATION
    ) -> list[Answer]:
        """Predict the answers of rows of a task, by scoring the task's possible answers or by generating text.

        Args:
            task: name of the task.
            rows: rows with the columns of the task's template.
            settings: batch size, `label_scoring` and number of beams.

        Raises:
            HyperFormerError: the task is unknown, a row does not fit the template, or the backbone does not support
                `label_scoring`.
            RowError: a row's scores are not finite.
        """
        self._group_of(task)
        self.check(settings)
        answers, numbers = self.tasks[task].answers, self.tasks[task].numbers
        sources = [self.source(task, row) for row in rows]
        if task in self.answers and settings.label_scoring != "generated":
            scores = self.scores(task, sources, settings.batch_size, settings.label_scoring)
            return text.combine_rows((row_scores.values for row_scores in scores), answers, numbers)
        labels = {self.backbone.normalize_answer(label): label for label in answers}
        values = dict(zip(answers, numbers or [], strict=False))
        generated = [labels.get(output, output) for output in self.generate(task, sources, settings)]
        return [Answer(label, {}, values.get(label)) for label in generated]

    def predict(self, task: str, row: Mapping[str, Any]) -> Answer:
        """Predict the answer of one row of a task."""
        return self.answer(task, [row])[0]

    @torch.no_grad()
    def bake(self, task: str) -> backbones.Backbone:
        """Return a copy of the backbone with the task's adapters and head as constants; it needs no method."""
        task_id = self._activate(task)
        return self.backbone.bake(self.method.weights(task_id), self._head(task_id))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write trained tensors, configuration and model card; the backbone is stored as a path with its checksum."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for index, group in enumerate(self.groups):
            inactive = self._trained and index != self._group
            name = _weights_name(self.groups, group)
            save_file(self._trained[index] if inactive else trained_tensors(self), folder / name)
            files[name] = manifest.sha256(folder / name)
        configuration = {
            "backbone": {
                **self.backbone_settings.model_dump(),
                "sha256": backbones.compute_checksum(self.backbone_settings),
            },
            "method": self.method_settings.name,
            "methods": {self.method_settings.name: self.method_settings.settings.model_dump()},
            "tasks": self.task_settings.model_dump(),
            "groups": self.groups,
            "files": files,
        }
        (folder / CONFIGURATION).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(self._render_card(), encoding="utf-8")

    def _render_card(self) -> str:
        name, task = next(iter(self.tasks.items()))
        row = json.dumps(dict.fromkeys(task.text_columns, "…"), ensure_ascii=False)
        backbone = self.backbone_settings
        tasks = "\n".join(
            f"- {name}: {task.settings.kind}, {text.format_template(task.settings.text)}"
            for name, task in self.tasks.items()
        )
        return f"""---
library_name: hyperformer
base_model: {backbone.path}
tags: [adapters, multi-task, {self.method_settings.name}]
---
# {len(self.tasks)} task{"s" if len(self.tasks) > 1 else ""} on {backbone.path}

Trained with {self.method_settings.name} by hyperformer. Only the trained weights are stored here. The backbone is
loaded from `{backbone.path}` (revision {backbone.revision or "not pinned"}), and its checksum is verified. If the
backbone has moved, pass its new path as `backbone=`.

```python
from hyperformer.model import MultiTaskModel

model = MultiTaskModel.from_pretrained("path/to/this/folder or Hub name")
model.predict("{name}", {row})
```

## Tasks

{tasks}
"""

    def push_to_hub(self, repository: str, private: bool | None = None) -> None:
        """Upload the files of `save_pretrained` to the Hub.

        Args:
            repository: name of the repository, as user/name; it is created if it does not exist.
            private: whether a new repository is private; None: the default of the Hub.

        Raises:
            HyperFormerError: the upload fails.
        """
        api = HfApi()
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(repo_id=repository, folder_path=folder)
            except (OSError, HFValidationError) as error:
                raise HyperFormerError(
                    f"cannot upload to the Hub repository {repository!r} ({first_line(error)}). Log in with `hf auth "
                    "login`, and use a repository of your account, as user/name."
                ) from error

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, backbone: str | None = None
    ) -> MultiTaskModel:
        """Load the model of a checkpoint.

        Args:
            name: a folder, or the name of a repository on the Hub.
            revision: branch, tag or commit on the Hub; None: the default branch. Ignored for a folder.
            backbone: path or Hub name of the backbone; None: the one that is stored in the checkpoint.

        Raises:
            HyperFormerError: `name` is not a checkpoint, its tensors do not fit its configuration, or the backbone is
                not the one that the checkpoint was trained on.
        """
        folder = Path(name) if Path(name).is_dir() else _download(str(name), revision)
        configuration = _read_configuration(folder)
        with _configuration_errors(folder):
            reference = configuration["backbone"]
            expected = reference.pop("sha256")
            settings = BackboneSettings(**(reference | ({"path": backbone, "revision": None} if backbone else {})))
            method = Methods(**configuration["methods"]).get_method(configuration["method"])
            tasks = Tasks(configuration["tasks"])
        try:
            model = cls(settings, method, tasks, groups=configuration["groups"])
        except HyperFormerError as error:
            raise HyperFormerError(
                f"cannot load the checkpoint {name} (if its backbone has moved, set backbone= or transfer.backbone): "
                f"{error}"
            ) from None
        if (actual := backbones.compute_checksum(settings)) != expected:
            raise HyperFormerError(
                f"backbone {settings.path!r} is not the one that {name} was trained on: its sha256 is {actual[:12]}…, "
                f"expected {expected[:12]}…. Set the right backbone (backbone= or transfer.backbone), or train again."
            )
        names = [_weights_name(model.groups, group) for group in model.groups]
        with _configuration_errors(folder):
            files = {**configuration.get("files", {})}
            checksums = [files[name] if files else None for name in names]  # earlier versions stored no checksums
        model.load_trained([_read_tensors(folder, name, sha256) for name, sha256 in zip(names, checksums, strict=True)])
        return model.eval()


def move_to_gpu(model: M) -> M:
    """Move a model to the GPU, if there is a GPU."""
    return model.to("cuda") if torch.cuda.is_available() else model


def make_embedder(backbone: BackboneSettings, batch_size: int) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return a function that computes the frozen backbone's mean hidden state of each text, [texts, d]."""
    frozen = move_to_gpu(backbones.load(backbone))

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        def run(input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
            return list(frozen.embed(input_ids, attention_mask))

        return torch.stack(_run_batches(frozen, texts, backbone, batch_size, run)).cpu().numpy()

    return embed


def _run_batches(
    backbone: backbones.Backbone,
    sources: Sequence[Source],
    settings: BackboneSettings,
    batch_size: int,
    run: Callable[[Tensor, Tensor], list[T]],
) -> list[T]:
    """Return the results of `run` for each source, from batches of similar length, in the order of the sources."""
    encoded = backbone.encode([Example("", source, "") for source in sources], settings)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
    device = next(backbone.parameters()).device
    results: dict[int, T] = {}
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = backbone.collate([encoded[i] for i in indices], [0] * len(indices)).tensors
        batch_results = run(*(batch[name].to(device) for name in ("input_ids", "attention_mask")))
        results.update(zip(indices, batch_results, strict=True))
    return [results[i] for i in range(len(encoded))]


def _build_answer_heads(backbone: backbones.Backbone, tasks: Mapping[str, Task]) -> AnswerHeads | None:
    return backbone.answer_heads([t.numbers for t in tasks.values()], [len(t.answers) for t in tasks.values()])


def _weights_name(groups: Sequence[Sequence[str]], group: Sequence[str]) -> str:
    """Return the name of the file of a group's trained tensors."""
    return WEIGHTS if len(groups) == 1 else WEIGHTS.replace(".", f"-{'-'.join(group)}.")


def _download(name: str, revision: str | None) -> Path:
    """Download a checkpoint from the Hub, and return its folder in the Hub's cache."""
    try:
        patterns = ["*.json", "*.safetensors", "*.md"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise HyperFormerError(
            f"no checkpoint {name!r}: neither a folder nor a repository on the Hub or in its cache "
            f"({first_line(error)}). Train a model first, or use another name."
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of the error's type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_configuration(folder: Path) -> dict[str, Any]:
    try:
        configuration: dict[str, Any] = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _not_a_checkpoint(folder, CONFIGURATION) from None
    except ValueError as error:
        raise HyperFormerError(
            f"checkpoint {folder} is damaged ({error}). Train again, or use another checkpoint."
        ) from None
    missing = [name for name in ("backbone", "method", "methods", "tasks", "groups") if name not in configuration]
    if missing:
        raise HyperFormerError(
            f"checkpoint {folder} is damaged ({CONFIGURATION} has no {missing[0]!r}). Train again, or use another "
            "checkpoint."
        )
    return rename_settings(configuration)


@contextmanager
def _configuration_errors(folder: Path) -> Iterator[None]:
    """Turn errors in a checkpoint's configuration into an error that names the checkpoint."""
    try:
        yield
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise HyperFormerError(
            f"checkpoint {folder} is damaged ({CONFIGURATION}: {message}). Train again, or use another checkpoint."
        ) from None


def _read_tensors(folder: Path, name: str, sha256: str | None) -> dict[str, Tensor]:
    """Read a file of trained tensors once, and verify its checksum unless `sha256` is None."""
    try:
        content = (folder / name).read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise HyperFormerError(
                f"{folder / name} is not the file that was saved with {CONFIGURATION} (its sha256 differs). Copy the "
                "whole checkpoint again, or train again."
            )
        return load(content)
    except OSError as error:
        if (folder / name).exists():
            raise HyperFormerError(f"cannot read {folder / name} ({error}). Check its permissions.") from None
        raise _not_a_checkpoint(folder, name) from None
    except SafetensorError as error:
        raise HyperFormerError(
            f"checkpoint {folder} is damaged ({error}). Train again, or use another checkpoint."
        ) from None


def _not_a_checkpoint(folder: Path, missing: str) -> HyperFormerError:
    return HyperFormerError(
        f"{folder} is not a checkpoint (it has no {missing}). Train a model first, or use another folder."
    )


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training changes, by name."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load trained tensors into a model; they must have exactly the names and shapes of its trainable parameters."""
    expected = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    mismatched = sorted(
        {name for name in expected if name not in tensors or tensors[name].shape != expected[name]}
        | (tensors.keys() - expected.keys())
    )
    if mismatched:
        raise HyperFormerError(
            f"the saved tensors do not fit the model: {len(mismatched)} differ in name or shape, the first is "
            f"{mismatched[0]!r}. Train again, or use the backbone and sizes that they were trained with."
        )
    model.load_state_dict(tensors, strict=False)


def count_parameters(backbone: BackboneSettings, method: MethodSettings, settings: Tasks) -> dict[str, float]:
    """Count the parameters of a configuration, without reading any weights.

    Args:
        backbone: settings of the backbone; only its configuration file is read.
        method: name and settings of the method.
        settings: settings of the tasks.

    Returns:
        `backbone`: parameters of the backbone. `added`: parameters of the method, summed over the models of all groups.
        `trained`: `added` plus the trained parameters of the backbone, summed in the same way. `total_ratio`: number of
        parameters that all tasks need together, divided by `backbone`. `trained_percent_per_task`: trained parameters
        per task, in percent of `backbone` (HyperFormer, table 1).
    """
    groups = methods.group_tasks(method, list(settings.root))
    architecture = backbones.load_without_weights(backbone)
    heads = _build_answer_heads(architecture, tasks.make_tasks(settings))
    with torch.device("meta"):
        method_module = methods.make_method(
            method, groups[0], architecture.sites(), architecture.width, heads.rows if heads else 0
        )
    if not method_module.trains_backbone:
        architecture.freeze()
    size = sum(p.numel() for p in architecture.parameters())
    tuned = sum(p.numel() for p in architecture.parameters() if p.requires_grad)
    added = len(groups) * sum(p.numel() for p in method_module.parameters())
    trained = added + len(groups) * tuned
    return {
        "backbone": size,
        "added": added,
        "trained": trained,
        "total_ratio": (size - tuned + trained) / size,
        "trained_percent_per_task": 100.0 * trained / len(settings.root) / size,
    }
