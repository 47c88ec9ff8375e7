"""A backbone, a method and tasks as one model: it learns from mixed batches, answers rows, and bakes tasks."""

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

CONFIGURATION, WEIGHTS, CARD = "configuration.json", "trained.safetensors", "README.md"
SCORED = EvaluationSettings(batch_size=64)
LARGE, PART_TOKENS, PARTS = 2048, 512, 8
"""On a processor, a training batch of `LARGE` tokens is parted by length, into parts of about `PART_TOKENS` tokens that
are padded each for itself."""
T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


class MultiTaskModel(nn.Module):
    """One backbone that answers every task; frozen but for its layer norms, unless the method trains it.

    A method that trains a model for each of several groups of tasks has one backbone here too: the trained tensors of
    the group that is asked are put in place.

    Args:
        backbone: where the frozen model is; it is loaded here.
        method: how the trainable weights arise.
        settings: the tasks.
        label_smoothing: of the loss.
        group: of tasks, whose model is trained.
        groups: which tasks have a model together, where not as the method has it.
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
        self.tasks: dict[str, Task] = tasks.make(settings)
        self.label_smoothing = label_smoothing
        self.groups = [list(names) for names in groups or methods.groups(method, list(self.tasks))]
        self.backbone = backbones.load(backbone)
        self.answer_heads = _answer_heads(self.backbone, self.tasks)
        rows = self.answer_heads.rows if self.answer_heads else 0
        self.method = methods.make(method, self.groups[group], self.backbone.sites(), self.backbone.width, rows)
        if isinstance(method.settings, AdapterSettings):
            self.backbone.place(self.method.sites, method.settings.activation)
        if not self.method.trains_backbone:
            self.backbone.freeze()
        self.answers = {name: self._answers(name) for name, task in self.tasks.items() if task.answers}
        open_tasks = [name for name in self.tasks if name not in self.answers]
        if open_tasks and not self.backbone.writes:
            raise HyperFormerError(
                f"the answers of task {open_tasks[0]!r} are to be written, but the backbone {backbone.path!r} only "
                "tells given answers apart; take one that writes, or leave the task out"
            )
        names = list(self.tasks)
        members = torch.tensor([[names.index(name) for name in group] for group in self.groups])
        self.register_buffer("members", members, persistent=False)  # [groups, tasks of each]
        self._group = group
        self._trained: list[dict[str, Tensor]] = []

    def _answers(self, task: str) -> Answers:
        """Token ids of a closed task's answers.

        Raises:
            HyperFormerError: an answer cannot be told from another, or is longer than a target may be.
        """
        answers = self.backbone.answers(self.tasks[task].answers, self.tasks[task].numbers)
        longest = self.backbone_settings.max_target_tokens
        if longest is not None and answers.longest > longest:
            raise HyperFormerError(
                f"task {task!r}: an answer has {answers.longest} tokens, expected at most backbone.max_target_tokens, "
                f"{longest}; raise it, or choose shorter answers"
            )
        return answers

    def assemble(self, trained: Sequence[dict[str, Tensor]]) -> None:
        """Puts trained tensors in place, those of each group; they must be exactly the ones that training changes."""
        for tensors in trained:
            restore(self, tensors)
        self._group, self._trained = len(trained) - 1, list(trained)

    def task_id(self, task: str) -> int:
        """The id of a task in the batches of its group."""
        return self.groups[self._group_of(task)].index(task)

    def _group_of(self, task: str) -> int:
        if task not in self.tasks:
            raise HyperFormerError(f"unknown task {task!r}; the model knows {', '.join(self.tasks)}")
        return next(number for number, group in enumerate(self.groups) if task in group)

    def _use(self, task: str) -> Tensor:
        """Puts the trained tensors of the task's group in place; its id there, as a tensor [1]."""
        group = self._group_of(task)
        if group != self._group and self._trained:
            restore(self, self._trained[group])
            self._group = group
        return torch.tensor([self.task_id(task)], device=next(self.parameters()).device)

    def forward(self, task_ids: Tensor, **tensors: Tensor) -> dict[str, Tensor]:
        """The losses of a batch of any mix of tasks: `row_losses` [B], and their mean, `loss`.

        Args:
            task_ids: [B].
            tensors: the backbone's, by name.
        """
        losses = self.row_losses(task_ids, tensors)
        return {"loss": losses.mean(), "row_losses": losses}

    def row_losses(self, task_ids: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Each row's loss with its own task's weights, [B]; of a large batch, rows of like length together."""
        present, rows = task_ids.unique(return_inverse=True)
        weights, head = self.method.weights(present), self._head(present)
        lengths = tensors["attention_mask"].sum(1)
        tokens = tensors["attention_mask"].numel()
        large = tokens >= LARGE and lengths.device.type == "cpu"  # a GPU pays for each part, hardly for padding
        parts = min(tokens // PART_TOKENS, PARTS) if large else 1
        order = lengths.argsort(stable=True) if parts > 1 else torch.arange(len(lengths), device=lengths.device)
        found = []
        for part in order.chunk(parts):
            own = {name: tensor[part] for name, tensor in tensors.items()}
            longest = int(lengths[part].max())
            own |= {name: own[name][:, :longest] for name in ("input_ids", "attention_mask")}
            with self.backbone.places.using(weights, rows[part] if len(present) > 1 else None, head):
                found.append(self.backbone.loss(own, self.label_smoothing))
        return torch.cat(found)[order.argsort()]

    def _head(self, task_ids: Tensor) -> HeadWeights | None:
        """What the answers of tasks [n] of the group at hand are read off by; None where the backbone needs no head."""
        heads = self.method.head(task_ids)
        if heads is None or self.answer_heads is None:
            return None
        return self.answer_heads(heads, self.members[self._group][task_ids])

    def scores(
        self, task: str, sources: Sequence[Source], batch_size: int, scoring: Scoring = "constrained"
    ) -> list[Scores]:
        """Log-probabilities of a closed task's answers for each source text."""

        def score(input_ids: Tensor, attention_mask: Tensor) -> list[Scores]:
            values = self.backbone.scores(input_ids, attention_mask, self.answers[task], scoring)  # [B, A]
            return [Scores(task, tuple(row)) for row in values.tolist()]

        return self._batched(task, sources, batch_size, score)

    def generate(self, task: str, sources: Sequence[Source], settings: EvaluationSettings) -> list[str]:
        """The text that the model writes after each source text."""
        longest = self.backbone_settings.max_target_tokens
        if task in self.answers:
            longest = self.answers[task].longest  # what is not at its end there is no answer
        assert longest is not None  # a backbone that writes has it

        def write(input_ids: Tensor, attention_mask: Tensor) -> list[str]:
            return self.backbone.generate(input_ids, attention_mask, longest, settings.num_beams)

        return self._batched(task, sources, settings.batch_size, write)

    @torch.no_grad()
    def _batched(
        self, task: str, sources: Sequence[Source], batch_size: int, run: Callable[[Tensor, Tensor], list[T]]
    ) -> list[T]:
        """What `run` says of each source with the task's weights, in the rows' order."""
        self.eval()
        task_id = self._use(task)
        with self.backbone.places.using(self.method.weights(task_id), None, self._head(task_id)):
            return _batched(self.backbone, sources, self.backbone_settings, batch_size, run)

    def source(self, task: str, row: Mapping[str, Any]) -> Source:
        """What the backbone reads of a row, as its tokenizer takes it."""
        return text.render(self.backbone.template(self.tasks[task].settings.text), row)

    def check(self, settings: EvaluationSettings) -> None:
        """Refuses settings that the backbone cannot answer by.

        Raises:
            HyperFormerError: answers are to be generated, and it writes none.
        """
        if settings.label_scoring == "generated" and not self.backbone.writes:
            raise HyperFormerError(
                f"evaluation.label_scoring is 'generated', but the backbone {self.backbone_settings.path!r} writes no "
                "answers; take constrained"
            )

    def answer(
        self, task: str, rows: Sequence[Mapping[str, Any]], settings: EvaluationSettings = SCORED
    ) -> list[Answer]:
        """Answer rows of a task: by a label's score, or by what is generated, as the settings say.

        Raises:
            RowError: a row's scores are not finite.
        """
        self._group_of(task)
        self.check(settings)
        known = self.tasks[task]
        sources = [self.source(task, row) for row in rows]
        if task in self.answers and settings.label_scoring != "generated":
            found = self.scores(task, sources, settings.batch_size, settings.label_scoring)
            return text.answers((scores.values for scores in found), known.answers, known.numbers)
        labels = {self.backbone.written(label): label for label in known.answers}
        numbers = dict(zip(known.answers, known.numbers or [], strict=False))
        written = [labels.get(words, words) for words in self.generate(task, sources, settings)]
        return [Answer(label, {}, numbers.get(label)) for label in written]

    def predict(self, task: str, row: Mapping[str, Any]) -> Answer:
        """The answer to one row of a task."""
        return self.answer(task, [row])[0]

    @torch.no_grad()
    def bake(self, task: str) -> backbones.Backbone:
        """A backbone of its own with the task's adapters as constants; the hypernetwork is gone."""
        task_id = self._use(task)
        return self.backbone.baked(self.method.weights(task_id), self._head(task_id))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes trained tensors, configuration and a card; the frozen backbone by reference, with its checksum."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for number, group in enumerate(self.groups):
            inactive = self._trained and number != self._group
            name = _weights(self.groups, group)
            save_file(self._trained[number] if inactive else trained_tensors(self), folder / name)
            files[name] = manifest.sha256(folder / name)
        configuration = {
            "backbone": {
                **self.backbone_settings.model_dump(),
                "sha256": backbones.checksum(self.backbone_settings),
            },
            "method": self.method_settings.name,
            "methods": {self.method_settings.name: self.method_settings.settings.model_dump()},
            "tasks": self.task_settings.model_dump(),
            "groups": self.groups,
            "files": files,
        }
        (folder / CONFIGURATION).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(self._card(), encoding="utf-8")

    def _card(self) -> str:
        first, one = next(iter(self.tasks.items()))
        row = json.dumps(dict.fromkeys(one.text_columns, "…"), ensure_ascii=False)
        where = self.backbone_settings
        names = "\n".join(
            f"- {name}: {task.settings.kind}, {text.named(task.settings.text)}" for name, task in self.tasks.items()
        )
        return f"""---
library_name: hyperformer
base_model: {where.path}
tags: [adapters, multi-task, {self.method_settings.name}]
---
# {len(self.tasks)} task{"s" if len(self.tasks) > 1 else ""} on {where.path}

Trained with {self.method_settings.name} by hyperformer. The backbone is not in here: it is loaded from `{where.path}`
(revision {where.revision or "not pinned"}), and its checksum compared; `backbone=` names it where it lies elsewhere.

```python
from hyperformer.model import MultiTaskModel

model = MultiTaskModel.from_pretrained("this folder or hub name")
model.predict("{first}", {row})
```

{names}
"""

    def push_to_hub(self, repository: str, private: bool | None = None) -> None:
        """Uploads what `save_pretrained` writes.

        Raises:
            HyperFormerError: the hub does not take it.
        """
        api = HfApi()
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(repo_id=repository, folder_path=folder)
            except (OSError, HFValidationError) as error:
                raise HyperFormerError(
                    f"the hub did not take {repository!r} ({first_line(error)}); log in with `hf auth "
                    "login`, and name a repository of yours as user/name"
                ) from error

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, backbone: str | None = None
    ) -> MultiTaskModel:
        """The model of a checkpoint.

        Args:
            name: a folder, or a hub name.
            revision: of the hub's repository.
            backbone: where the backbone lies, if not where the checkpoint says.
        Raises:
            HyperFormerError: it is no checkpoint, its tensors do not fit its configuration, or the backbone is not the
                one that it was trained on.
        """
        folder = Path(name) if Path(name).is_dir() else _snapshot(str(name), revision)
        configuration = _configuration(folder)
        with _damage(folder):
            reference = configuration["backbone"]
            expected = reference.pop("sha256")
            where = BackboneSettings(**(reference | ({"path": backbone, "revision": None} if backbone else {})))
            method = Methods(**configuration["methods"]).named(configuration["method"])
            tasks = Tasks(configuration["tasks"])
        try:
            model = cls(where, method, tasks, groups=configuration["groups"])
        except HyperFormerError as error:
            raise HyperFormerError(
                f"the checkpoint {name} cannot be loaded: {error}; where its backbone lies elsewhere, say so "
                "(backbone=, or transfer.backbone)"
            ) from None
        if (got := backbones.checksum(where)) != expected:
            raise HyperFormerError(
                f"the backbone {where.path!r} is not the one that {name} was trained on: the sha256 of its files is "
                f"{got[:12]}…, expected {expected[:12]}…; give the right one (backbone=, or transfer.backbone), or "
                "train again"
            )
        names = [_weights(model.groups, group) for group in model.groups]
        with _damage(folder):
            files = {**configuration.get("files", {})}
            checksums = [files[name] if files else None for name in names]  # earlier versions stored none
        model.assemble([_tensors(folder, name, sha256) for name, sha256 in zip(names, checksums, strict=True)])
        return model.eval()


def accelerated(model: M) -> M:
    """A model on the GPU, where there is one; else as it is."""
    return model.to("cuda") if torch.cuda.is_available() else model


def embeddings(backbone: BackboneSettings, batch_size: int) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """What gives the frozen backbone's mean hidden state of each text, [texts, d]."""
    frozen = accelerated(backbones.load(backbone))

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        def run(input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
            return list(frozen.embed(input_ids, attention_mask))

        return torch.stack(_batched(frozen, texts, backbone, batch_size, run)).cpu().numpy()

    return embed


def _batched(
    backbone: backbones.Backbone,
    sources: Sequence[Source],
    settings: BackboneSettings,
    batch_size: int,
    run: Callable[[Tensor, Tensor], list[T]],
) -> list[T]:
    """What `run` says of each source; batched by length, and back in the rows' order."""
    encoded = backbone.encode([Example("", source, "") for source in sources], settings)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
    device = next(backbone.parameters()).device
    found: dict[int, T] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = backbone.collate([encoded[i] for i in chosen], [0] * len(chosen)).tensors
        said = run(*(batch[name].to(device) for name in ("input_ids", "attention_mask")))
        found.update(zip(chosen, said, strict=True))
    return [found[i] for i in range(len(encoded))]


def _answer_heads(backbone: backbones.Backbone, tasks: Mapping[str, Task]) -> AnswerHeads | None:
    return backbone.answer_heads([one.numbers for one in tasks.values()], [len(one.answers) for one in tasks.values()])


def _weights(groups: Sequence[Sequence[str]], group: Sequence[str]) -> str:
    """The file of a group's trained tensors."""
    return WEIGHTS if len(groups) == 1 else WEIGHTS.replace(".", f"-{'-'.join(group)}.")


def _snapshot(name: str, revision: str | None) -> Path:
    """A hub repository's files, in the hub's own cache."""
    try:
        wanted = ["*.json", "*.safetensors", "*.md"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise HyperFormerError(
            f"no checkpoint {name!r}: neither a folder nor a repository that the hub or its cache gives "
            f"({first_line(error)}); train first, or name another"
        ) from error


def first_line(error: Exception) -> str:
    """What a library says, without what it goes on to say."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_checkpoint(folder, CONFIGURATION) from None
    except ValueError as error:
        raise HyperFormerError(f"the checkpoint {folder} is damaged ({error}); train again, or name another") from None
    lacking = [name for name in ("backbone", "method", "methods", "tasks", "groups") if name not in found]
    if lacking:
        raise HyperFormerError(
            f"the checkpoint {folder} is damaged ({CONFIGURATION} has no {lacking[0]!r}); train again, or name another"
        )
    return rename_settings(found)


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """What is wrong inside with a checkpoint's configuration, in one sentence."""
    try:
        yield
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise HyperFormerError(
            f"the checkpoint {folder} is damaged ({CONFIGURATION}: {told}); train again, or name another"
        ) from None


def _tensors(folder: Path, name: str, sha256: str | None) -> dict[str, Tensor]:
    """Read a file of trained tensors once, and compare its bytes with their checksum, where there is one."""
    try:
        content = (folder / name).read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise HyperFormerError(
                f"{folder / name} is not the file that was saved with {CONFIGURATION} (its sha256 differs); copy the "
                "whole checkpoint again, or train again"
            )
        return load(content)
    except OSError as error:
        if (folder / name).exists():
            raise HyperFormerError(f"{folder / name} cannot be read ({error}); see to its rights") from None
        raise _no_checkpoint(folder, name) from None
    except SafetensorError as error:
        raise HyperFormerError(f"the checkpoint {folder} is damaged ({error}); train again, or name another") from None


def _no_checkpoint(folder: Path, missing: str) -> HyperFormerError:
    return HyperFormerError(f"{folder} is no checkpoint (it has no {missing}); train first, or name another")


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts trained tensors back; exactly those that training changes must be there, in their shapes."""
    expected = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    odd = sorted(
        {name for name in expected if name not in tensors or tensors[name].shape != expected[name]}
        | (tensors.keys() - expected.keys())
    )
    if odd:
        raise HyperFormerError(
            f"the saved tensors do not fit the model: {len(odd)} differ in name or shape, the first is {odd[0]!r}; "
            "train again, or use the backbone and sizes that they were trained with"
        )
    model.load_state_dict(tensors, strict=False)


def parameter_counts(backbone: BackboneSettings, method: MethodSettings, settings: Tasks) -> dict[str, float]:
    """How many parameters a configuration has, from the backbone's own configuration alone: no weights are read.

    Returns:
        `backbone`; `added`: the method's own; `trained`: those and what is trained of the backbone, over all models;
        `total_ratio`: all that must be kept to answer every task, relative to the backbone; `trained_percent_per_task`:
        `trained` a task, in percent of the backbone (HyperFormer, table 1).
    """
    groups = methods.groups(method, list(settings.root))
    plain = backbones.skeleton(backbone)
    heads = _answer_heads(plain, tasks.make(settings))
    with torch.device("meta"):
        own = methods.make(method, groups[0], plain.sites(), plain.width, heads.rows if heads else 0)
    if not own.trains_backbone:
        plain.freeze()
    size = sum(p.numel() for p in plain.parameters())
    tuned = sum(p.numel() for p in plain.parameters() if p.requires_grad)
    added = len(groups) * sum(p.numel() for p in own.parameters())
    trained = added + len(groups) * tuned
    return {
        "backbone": size,
        "added": added,
        "trained": trained,
        "total_ratio": (size - tuned + trained) / size,
        "trained_percent_per_task": 100.0 * trained / len(settings.root) / size,
    }
