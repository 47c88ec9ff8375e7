"""A multi-task model: a backbone with the trained weights of a method, its training loss and its predictions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from hyperformer import backbones, methods, tasks
from hyperformer.backbones import AnswerHeads, Answers, GenerativeBackbone
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.types import Answer, HeadWeights, Scores, Scoring, Source
from hyperformer.model import saving
from hyperformer.model.checkpoint import Checkpoint, damaged_error, read_checkpoint
from hyperformer.model.inference import run_batches
from hyperformer.model.tensors import ParameterGroup, restore
from hyperformer.settings import BackboneSettings, EvaluationSettings, MethodSettings, Tasks
from hyperformer.tasks import Task

DEFAULT_EVALUATION = EvaluationSettings(batch_size=64)
"""Default settings of inference."""
T = TypeVar("T")


class MultiTaskModel(nn.Module):
    """A backbone with the trained weights of a method, which predicts the answers of all tasks.

    The backbone is frozen except for its layer norms, unless the method trains the whole backbone. A method that trains
    a separate model for each task has several of these models; see `TaskModels`.

    Args:
        backbone: settings of the backbone to load.
        method: name and settings of the method.
        settings: settings of all tasks of the method's models.
        label_smoothing: label smoothing of the loss.
        group: names of the tasks that this model answers; None: all tasks.
    """

    members: Tensor

    def __init__(
        self,
        backbone: BackboneSettings,
        method: MethodSettings,
        settings: Tasks,
        label_smoothing: float = 0.0,
        group: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone_settings, self.method_settings, self.task_settings = backbone, method, settings
        self.tasks: dict[str, Task] = tasks.make_tasks(settings)
        self.label_smoothing = label_smoothing
        self.group = list(self.tasks if group is None else group)
        self.backbone = backbones.load(backbone)
        self.answer_heads = build_answer_heads(self.backbone, self.tasks)
        rows = self.answer_heads.rows if self.answer_heads else 0
        self.method = methods.make_method(method, self.group, self.backbone.sites(), self.backbone.width, rows)
        if self.method.sites:
            self.backbone.insert_adapters(self.method.sites, self.method.activation)
        if not self.method.trains_backbone:
            self.backbone.freeze()
        self.answers = encode_answers(self.backbone, backbone, self.tasks)
        members = torch.tensor(list(map(list(self.tasks).index, self.group)))
        self.register_buffer("members", members, persistent=False)  # [tasks of the group]

    def copy_for(self, group: Sequence[str]) -> MultiTaskModel:
        """Return a copy that answers another group of as many tasks; the copies share their frozen weights."""
        shared = [self.backbone.tokenizer, *(p for p in self.parameters() if not p.requires_grad)]
        copied = copy.deepcopy(self, {id(entry): entry for entry in shared})
        copied.group = list(group)
        copied.members = torch.tensor(list(map(list(self.tasks).index, group)), device=self.members.device)
        return copied

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the trained parameters by kind; those of the method's main kind are first."""
        method, kinds = self.method, dict[str, list[nn.Parameter]]({self.method.main_kind: []})
        for name, parameter in self.named_parameters():
            scope, _, rest = name.partition(".")
            if parameter.requires_grad:
                kind = method.parameter_kind(rest) if scope == "method" else method.backbone_kind
                kinds.setdefault(kind, []).append(parameter)
        return [ParameterGroup(kind, method.multiplier(kind), group) for kind, group in kinds.items() if group]

    def task_id(self, task: str) -> int:
        """Return the id of a task in batches, its index in the group.

        Raises:
            HyperFormerError: this model does not answer the task.
        """
        if task not in self.group:
            raise HyperFormerError(f"unknown task {task!r}; expected one of {', '.join(self.group)}.")
        return self.group.index(task)

    def _task_ids(self, task: str) -> Tensor:
        """Return the id of a task as a tensor [1]."""
        return torch.tensor([self.task_id(task)], device=self.members.device)

    def forward(self, task_ids: Tensor, **tensors: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch of any mix of tasks: `row_losses` [B] and their mean, `loss`.

        Args:
            task_ids: id of each row's task in its group, [B].
            **tensors: the backbone's inputs by name.
        """
        losses = self.row_losses(task_ids, tensors)
        return {"loss": losses.mean(), "row_losses": losses}

    def row_losses(self, task_ids: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the loss of each row with its task's weights, [B]."""
        present, rows = task_ids.unique(return_inverse=True)
        with torch.autocast(task_ids.device.type, enabled=False):
            weights, head = self.method.weights(present), self._head(present)
        with self.backbone.active_weights.use(weights, rows if len(present) > 1 else None, head):
            return self.backbone.loss(tensors, self.label_smoothing)

    def _head(self, task_ids: Tensor) -> HeadWeights | None:
        """Return the heads of tasks [n]; None if the backbone needs no heads."""
        heads = self.method.head(task_ids)
        if heads is None or self.answer_heads is None:
            return None
        return self.answer_heads(heads, self.members[task_ids])

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
        backbone = self.backbone
        assert limit is not None and isinstance(backbone, GenerativeBackbone)  # checked before

        def generate(input_ids: Tensor, attention_mask: Tensor) -> list[str]:
            return backbone.generate(input_ids, attention_mask, limit, settings.num_beams)

        return self._run_batches(task, sources, settings.batch_size, generate)

    @torch.no_grad()
    def _run_batches(
        self, task: str, sources: Sequence[Source], batch_size: int, run: Callable[[Tensor, Tensor], list[T]]
    ) -> list[T]:
        """Return the results of `run` for each source with the task's weights, in the order of the sources."""
        self.eval()
        task_id = self._task_ids(task)
        with self.backbone.active_weights.use(self.method.weights(task_id), None, self._head(task_id)):
            return run_batches(self.backbone, sources, self.backbone_settings, batch_size, run)

    def source(self, task: str, row: Mapping[str, Any]) -> Source:
        """Render a row by the task's template into the input of the backbone's tokenizer."""
        return text.render(self.backbone.format_template(self.tasks[task].settings.text), row, self.tasks[task].missing)

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
        self.task_id(task)
        check_label_scoring(self.backbone, self.backbone_settings, settings)
        answers, numbers = self.tasks[task].answers, self.tasks[task].numbers
        sources = [self.source(task, row) for row in rows]
        if task in self.answers and settings.label_scoring != "generated":
            scores = self.scores(task, sources, settings.batch_size, settings.label_scoring)
            return text.combine_rows((row_scores.values for row_scores in scores), answers, numbers)
        assert isinstance(self.backbone, GenerativeBackbone)
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
        task_id = self._task_ids(task)
        return self.backbone.bake(self.method.weights(task_id), self._head(task_id))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write trained tensors, configuration and model card; the backbone is stored as a path with its checksum."""
        saving.save([self], Path(folder))

    def push_to_hub(self, repository: str, private: bool | None = None) -> None:
        """Upload the files of `save_pretrained` to the Hub.

        Args:
            repository: name of the repository, as user/name; it is created if it does not exist.
            private: whether a new repository is private; None: the default of the Hub.

        Raises:
            HyperFormerError: the upload fails.
        """
        saving.push([self], repository, private)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, backbone: str | None = None, task: str | None = None
    ) -> MultiTaskModel:
        """Load a model of a checkpoint.

        Args:
            name: a folder, or the name of a repository on the Hub.
            revision: branch, tag or commit on the Hub; None: the default branch. Ignored for a folder.
            backbone: path or Hub name of the backbone; None: the one that is stored in the checkpoint.
            task: the task whose model is loaded; None: the only model of the checkpoint.

        Raises:
            HyperFormerError: `name` is not a checkpoint, its tensors do not fit its configuration, the backbone is not
                the one that the checkpoint was trained on, or `task` does not select one model.
        """
        checkpoint = read_checkpoint(name, revision, backbone)
        groups = [group for group in checkpoint.groups if task is None or task in group]
        if len(groups) != 1:
            known = ", ".join(name for group in checkpoint.groups for name in group)
            raise HyperFormerError(f"{name}: got task {task!r}; expected one of {known}, to select one model.")
        return cls.from_checkpoint(checkpoint, groups[0])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, group: Sequence[str]) -> MultiTaskModel:
        """Load the model of a group of tasks; see `from_pretrained` for the errors."""
        with backbone_errors(checkpoint):
            model = cls(checkpoint.backbone, checkpoint.method, checkpoint.tasks, group=group)
        restore(model, read_tensors(checkpoint, group))
        return model.eval()


@contextmanager
def backbone_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Name the checkpoint in errors of its backbone, and check that it is the backbone that it was trained on.

    Raises:
        HyperFormerError: the block failed, or the backbone's checksum differs.
    """
    settings, expected = checkpoint.backbone, checkpoint.backbone_sha256
    try:
        yield
    except HyperFormerError as error:
        raise HyperFormerError(
            f"cannot load the checkpoint {checkpoint.name} (if its backbone has moved, set backbone= or "
            f"transfer.backbone): {error}"
        ) from None
    if (actual := backbones.compute_checksum(settings)) != expected:
        raise HyperFormerError(
            f"backbone {settings.path!r} is not the one that {checkpoint.name} was trained on: its sha256 is "
            f"{actual[:12]}…, expected {expected[:12]}…. Set the right backbone (backbone= or transfer.backbone), "
            "or train again."
        )


def read_tensors(checkpoint: Checkpoint, group: Sequence[str]) -> dict[str, Tensor]:
    """Read the trained tensors of a group of tasks.

    Raises:
        HyperFormerError: the file of the tensors is missing, damaged, or not the file that was saved.
    """
    try:
        return load(checkpoint.read_weights(group))
    except SafetensorError as error:
        raise damaged_error(checkpoint.folder, error) from None


def build_answer_heads(backbone: backbones.Backbone, tasks: Mapping[str, Task]) -> AnswerHeads | None:
    """Build the mapping from head outputs to the answers of tasks; None if the backbone needs no heads."""
    return backbone.answer_heads([t.numbers for t in tasks.values()], [len(t.answers) for t in tasks.values()])


def encode_answers(
    backbone: backbones.Backbone, settings: BackboneSettings, tasks: Mapping[str, Task]
) -> dict[str, Answers]:
    """Encode the answers of all classification and regression tasks.

    Raises:
        HyperFormerError: two answers of a task encode to the same tokens, an answer is longer than `max_target_tokens`,
            or a task is generative and the backbone is not.
    """
    answers, limit = {}, settings.max_target_tokens
    for name, task in tasks.items():
        if not task.answers:
            continue
        answers[name] = backbone.encode_answers(task.answers, task.numbers)
        if limit is not None and answers[name].longest > limit:
            raise HyperFormerError(
                f"task {name!r}: an answer has {answers[name].longest} tokens; expected at most {limit}, "
                "backbone.max_target_tokens. Raise the setting or choose shorter answers."
            )
    generative = [name for name in tasks if name not in answers]
    if generative and not isinstance(backbone, GenerativeBackbone):
        raise HyperFormerError(
            f"task {generative[0]!r} is generative, but backbone {settings.path!r} is an encoder. Use a seq2seq "
            "backbone or remove the task."
        )
    return answers


def check_label_scoring(
    backbone: backbones.Backbone, settings: BackboneSettings, evaluation: EvaluationSettings
) -> None:
    """Check that the backbone supports the setting `label_scoring`.

    Raises:
        HyperFormerError: `label_scoring` is 'generated', but the backbone is an encoder.
    """
    if evaluation.label_scoring == "generated" and not isinstance(backbone, GenerativeBackbone):
        raise HyperFormerError(
            f"evaluation.label_scoring is 'generated', but backbone {settings.path!r} is an encoder. Use 'constrained' "
            "or a seq2seq backbone."
        )
