"""What a user may set: every parameter of the project, typed, checked before any work starts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    RootModel,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from hyperformer.types import HyperFormerError, Scoring, Source

MOST_ANSWERS = 1000
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class ConfigurationError(HyperFormerError):
    """A setting that cannot be used."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbeddedSettings(_Settings):
    """How many rows of the embedded language to make for each task."""

    train: Positive
    small_train: Positive
    """Training rows of the tasks that are meant to be small."""
    validation: Positive
    test: Positive


class T5Sizes(_Settings):
    """The sizes of a T5 to pretrain; names as in transformers' `T5Config`."""

    d_model: Positive
    d_kv: Positive
    d_ff: Positive
    num_layers: Positive
    num_decoder_layers: Positive
    num_heads: Annotated[int, Field(ge=4)]
    """Four or more: the first four begin with a part of their own."""
    dropout_rate: Rate = 0.1
    feed_forward_proj: str = "relu"


class LoopSettings(_Settings):
    """What pretraining and training share: the optimiser, its schedule, and the arithmetic."""

    steps: Positive
    learning_rate: Annotated[float, Field(gt=0, lt=100)]
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps of linear warm-up; after them the rate falls linearly to 0 at the last step."""
    label_smoothing: Rate = 0.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` takes bf16 where the processor or GPU computes it natively."""
    gradient_accumulation_steps: Positive = 1
    """Parts of like length that a batch is computed in, one after another: memory for one of them."""
    gradient_checkpointing: bool = False
    """Computes the activations of a block anew in the backward pass: less memory for more time."""


class PretrainingSettings(LoopSettings):
    """How a small backbone is made from text."""

    batch_size: Positive
    """Rows in a batch."""
    rows: Positive
    """Rows of pretraining text."""
    text_file: str | None = None
    """One paragraph a line, read along with the texts of all training rows; null for the embedded language."""
    vocab_size: Positive
    sizes: T5Sizes
    max_tokens: Positive
    """Longest piece of text."""
    noise_density: Rate = 0.15
    mean_noise_span_length: Annotated[float, Field(ge=1)] = 3.0


class BackboneSettings(_Settings):
    """The frozen model under all tasks."""

    path: str
    """A folder in transformers' layout, or a hub name."""
    revision: str | None = None
    max_source_tokens: Positive
    """Where a source text is cut."""
    max_target_tokens: Positive | None = None
    """Where an answer to learn is cut, and where generating stops; </s> counts. Of backbones that write their answers.
    """


class DataSettings(_Settings):
    """Where rows come from unless a task says otherwise."""

    source: str
    """`embedded`, a local folder, or a hub name."""


class SourceSettings(_Settings):
    """Where a task's rows are: `path` as in `data.source`, `name` a sub-folder or the hub's configuration name."""

    path: str | None = None
    name: str | None = None
    revision: str | None = None
    rows: Positive | None = None
    """At most so many rows of each split of the source, the first ones; from a hub they are streamed."""


class SplitSettings(_Settings):
    """Which of the source's splits are used, and how.

    Each is a split's name, or for one of them `halve_<other>` (the second half of <other>, which keeps the first) or
    `hold_out_<N>` (N rows taken out of train).
    """

    train: str = "train"
    validation: str = "validation"
    test: str = "test"

    @model_validator(mode="after")
    def _hold_out_counts(self) -> SplitSettings:
        for split, source in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if source.startswith("hold_out_") and (split == "train" or not re.fullmatch(r"hold_out_[1-9]\d*", source)):
                raise ValueError(
                    f"{split} is {source!r}; expected a split's name, and for validation or test hold_out_<N>"
                )
        return self


def _source(given: Any) -> Source:
    if isinstance(given, str):
        return given
    if isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(part, str) for part in given):
        return given[0], given[1]
    raise ValueError(f"expected a text, or a list of two texts, got {given!r}")


class TaskSettings(_Settings):
    """One task: where its rows are, how a row reads, and what its answers are."""

    source: SourceSettings = SourceSettings()
    text: Annotated[Source, BeforeValidator(_source)]
    """The source text, with columns in braces; or two, which a backbone pairs in its own way (T5 puts a blank between).
    """
    kind: Literal["classification", "regression", "generation"]
    label_column: str
    """The column of the label, the number, or the text to generate."""
    labels: dict[str | int | bool, Annotated[str, Field(min_length=1)]] | None = None
    """Classification: value in the column → answer text."""
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    step: FiniteFloat | None = None
    """Regression: answers are the numbers from `minimum` to `maximum`, `step` apart."""
    metrics: tuple[str, ...] = Field(min_length=1)
    splits: SplitSettings = SplitSettings()
    weight: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """Multiplies the task's share of the batches."""

    @model_validator(mode="after")
    def _kind_has_its_answers(self) -> TaskSettings:
        grid = (self.minimum, self.maximum, self.step)
        if self.kind == "classification":
            if self.labels is None or len(self.labels) < 2 or any(v is not None for v in grid):
                raise ValueError("a classification task needs `labels`, at least two, and no minimum, maximum or step")
            if len(set(self.labels.values())) < len(self.labels):
                raise ValueError("two labels have the same answer text; give each its own")
            if len({str(value) for value in self.labels}) < len(self.labels):
                raise ValueError("two labels stand for the same value of the column; give each its own")
        elif self.kind == "generation":
            if self.labels is not None or any(v is not None for v in grid):
                raise ValueError("a generation task has neither labels nor minimum, maximum and step")
        elif self.labels is not None or any(v is None for v in grid):
            raise ValueError("a regression task needs `minimum`, `maximum` and `step`, and no labels")
        elif self.step <= 0 or self.maximum <= self.minimum:  # type: ignore[operator]
            raise ValueError("a regression task needs step > 0 and maximum > minimum")
        elif self.maximum - self.minimum < self.step:  # type: ignore[operator]
            raise ValueError("a regression task needs at least two answers; take a smaller step")
        elif (self.maximum - self.minimum) / self.step > MOST_ANSWERS:  # type: ignore[operator]
            raise ValueError(f"a regression task has at most {MOST_ANSWERS} answers; take a larger step")
        return self


class Tasks(RootModel[dict[str, TaskSettings]]):
    """Every task by name, which is a folder's too."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _names_are_folders(self) -> Tasks:
        for name in self.root:
            if not name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
                raise ValueError(
                    f"a task's name is a folder's too: no slash, no dot in front, no control character; got {name!r}"
                )
        return self


class FineTuningSettings(_Settings):
    """Fine-tuning trains the backbone itself, and has no settings of its own."""


class AdapterSettings(_Settings):
    """What every method with adapters has."""

    reduction_factor: Positive
    """The adapters' bottleneck is the backbone's width divided by this."""
    activation: Literal["gelu_new", "gelu", "relu", "silu", "tanh"] = "gelu_new"
    positions: Literal["both", "feed_forward", "self_attention"] = "both"
    """After which layers of a block adapters sit."""
    stacks: Literal["both", "encoder", "decoder"] = "both"
    """Whose blocks have adapters."""
    adapter_init: Literal["paper", "identity"] = "paper"
    """What adapters do before training: a little, as the authors' do, or nothing: gains and shifts of their layer norms
    at 0. A layer norm makes much of little, and where a backbone's sublayers say little, as BERT's, that drowns them.
    """


class ProjectorSettings(_Settings):
    """The two layers between embeddings and generators."""

    hidden_dim: Positive
    output_dim: Positive


class HyperFormerSettings(AdapterSettings):
    """HyperFormer: generators for each block and position."""

    head: Literal["generated", "trained"] = "generated"
    """The head of a task on a backbone that answers by one: from the task embedding, or a trained one a task."""

    task_embedding_dim: Positive
    """The size of every embedding."""
    projector: ProjectorSettings | None
    """None: generators read the embeddings themselves."""
    layer_norm: Literal["conditional", "conditional_from_one", "unconditional"] = "conditional"
    """Generated, its gain starting at 0 (the authors') or at 1; or a trained one a site, which the tasks share."""

    @model_validator(mode="after")
    def _one_start(self) -> HyperFormerSettings:
        if self.adapter_init == "identity" and self.layer_norm == "conditional_from_one":
            raise ValueError("adapters that start as the identity have gains of 0; take layer_norm: conditional")
        return self


class HyperFormerPlusPlusSettings(HyperFormerSettings):
    """HyperFormer++: one hypernetwork a stack."""

    share_layers: bool = True
    """Off: generators for each layer, instead of layer embeddings."""


class MethodSettings(_Settings):
    """A method by its name, with its own settings."""

    name: str
    settings: SerializeAsAny[AdapterSettings | FineTuningSettings]


class Methods(_Settings):
    """The settings of each method; those of the one that `method` names are used."""

    hyperformer_plus_plus: HyperFormerPlusPlusSettings | None = None
    hyperformer: HyperFormerSettings | None = None
    adapters_multi_task: AdapterSettings | None = None
    adapters_per_task: AdapterSettings | None = None
    fine_tuning_multi_task: FineTuningSettings | None = None
    fine_tuning_per_task: FineTuningSettings | None = None

    def named(self, name: str) -> MethodSettings:
        """The method `name` with its settings.

        Raises:
            ConfigurationError: it has no block here, or there is no such method.
        """
        settings = getattr(self, name, None) if name in type(self).model_fields else None
        if settings is None:
            present = [known for known in type(self).model_fields if getattr(self, known) is not None]
            raise ConfigurationError(
                f"the setting 'method' is {name!r}, but `methods` has no block of that name; {nearest(name, present)}"
            )
        return MethodSettings(name=name, settings=settings)


class TrainingSettings(LoopSettings):
    """How the tasks are trained together."""

    batch_size: Positive | None = None
    """Rows in a batch, over all processes."""
    batch_tokens: Positive | None = None
    """In place of `batch_size`: a batch has as many rows as have so many source tokens together, at least one."""
    temperature: Annotated[float, Field(gt=0)]
    """T of temperature sampling: a task's share is proportional to rows^(1/T)."""
    evaluate_every: Positive
    """Steps between validations; the checkpoint with the best mean metric is kept."""
    validation_rows: Positive
    """At most so many validation rows a task are scored during training."""
    patience: Positive | None = None
    """Validations without a better mean after which training stops; off where empty."""
    processes: Positive = 1
    """On each machine; they share every batch out. With GPUs, at most one a GPU."""
    machines: Positive = 1
    rendezvous: str | None = None
    """Where several machines meet: the first one's name and a free port, host:port."""
    resume_from: str | None = None
    """A folder of resume states from elsewhere to go on from; refused where it is of other work."""

    @model_validator(mode="after")
    def _one_size_of_batches(self) -> TrainingSettings:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError("expected either batch_size or batch_tokens, and not both")
        if self.batch_tokens is not None and self._parts > 1:
            raise ValueError(
                "several processes, or gradient_accumulation_steps, part batches of a fixed size; take batch_size, not "
                "batch_tokens"
            )
        if self.batch_size is not None and self.batch_size < self._parts:
            raise ValueError(
                f"batch_size is {self.batch_size}, but processes and gradient_accumulation_steps part a batch in "
                f"{self._parts}; take a larger batch, or fewer of them"
            )
        if (self.machines > 1) != (self.rendezvous is not None):
            raise ValueError("several machines need a rendezvous, host:port, and one machine has none")
        if self.rendezvous is not None and not re.fullmatch(r"[^:\s]+:\d+", self.rendezvous):
            raise ValueError(f"rendezvous is {self.rendezvous!r}; expected host:port")
        return self

    @property
    def _parts(self) -> int:
        return self.processes * self.machines * self.gradient_accumulation_steps


class TransferSettings(LoopSettings):
    """How a trained model is adapted to the tasks at hand, from few rows, without any choice made on other rows."""

    checkpoint: str
    """Where the trained model is: a folder or a hub name."""
    backbone: str | None = None
    """Where its backbone lies, if not where the checkpoint says."""
    samples: Positive | None = None
    """Training rows of each task that are used, drawn by the seed; all where empty."""
    initialize_from: Literal["nearest", "mean", "random"] = "nearest"
    """Where a task's own weights (its embedding; of Adapters† its adapters) start: at those of the trained task with
    the lowest loss on the task's samples, at their mean over the trained tasks, or anew.
    """
    train: Literal["all", "task_specific"] = "all"
    """All that the method trains, or the tasks' own weights alone."""
    batch_size: Positive
    """Rows in a batch."""


class EvaluationSettings(_Settings):
    """How rows are answered."""

    batch_size: Positive
    """Rows answered at once."""
    label_scoring: Scoring | Literal["generated"] = "constrained"
    """Tasks with a closed set of answers: the likeliest of them, an answer's tokens each among those that may follow in
    the task's answers (`constrained`) or among the whole vocabulary (`likelihood`); or whatever is generated, as in the
    paper.
    """
    num_beams: Positive = 1
    """Beams of generating; 1 is greedy."""


class ExportSettings(_Settings):
    """How graphs are written and checked."""

    opset: Annotated[int, Field(ge=18)]
    tolerance: Annotated[float, Field(gt=0)]
    """Largest difference of a score between torch and the graph, and the width of a tie."""


class Settings(_Settings):
    """The whole parameter tree of an environment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    embedded: EmbeddedSettings
    pretraining: PretrainingSettings
    backbone: BackboneSettings
    data: DataSettings
    tasks: Tasks
    method: str
    methods: Methods
    training: TrainingSettings
    transfer: TransferSettings
    evaluation: EvaluationSettings
    export: ExportSettings

    @property
    def chosen_method(self) -> MethodSettings:
        """The method that `method` names, with its settings."""
        return self.methods.named(self.method)


RENAMED = {
    "evaluation.beams": "evaluation.num_beams",
    "evaluation.closed_tasks": "evaluation.label_scoring",
    "methods.*.projector.hidden": "methods.*.projector.hidden_dim",
    "methods.*.projector.projected": "methods.*.projector.output_dim",
    "methods.*.start": "methods.*.adapter_init",
    "methods.*.task_embedding": "methods.*.task_embedding_dim",
    "pretraining.mean_span": "pretraining.mean_noise_span_length",
    "pretraining.text": "pretraining.text_file",
    "pretraining.vocabulary": "pretraining.vocab_size",
    "transfer.start": "transfer.initialize_from",
    "transfer.trains": "transfer.train",
}
"""Names of version 0.1 and today's, beside each other in the same block; `*` is any method."""
RENAMED_VALUES = {
    "methods.*.adapter_init": {"authors": "paper"},
    "transfer.initialize_from": {"noise": "random"},
    "transfer.train": {"own": "task_specific"},
}
"""Values of version 0.1 and today's, by today's name of the setting."""


def check(parameters: dict[str, Any]) -> Settings:
    """Validate a parameter tree and return its typed settings.

    Raises:
        ConfigurationError: a key is unknown, renamed or missing, or its value is invalid; names every fault.
    """
    try:
        settings = Settings.model_validate(parameters)
    except ValidationError as error:
        faults = error.errors()
        renamed = {_new_name(fault["loc"]) for fault in faults if fault["type"] == "extra_forbidden"}
        sentences = [
            _sentence(fault) for fault in faults if fault["type"] != "missing" or _generic(fault["loc"]) not in renamed
        ]
        raise ConfigurationError("; ".join(sentences)) from None
    settings.methods.named(settings.method)
    return settings


def rename_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter tree of version 0.1 under today's names; a tree of today is returned as it is."""
    return _renamed(parameters, ())


def _renamed(tree: Any, path: tuple[int | str, ...]) -> Any:
    if not isinstance(tree, dict):
        return RENAMED_VALUES.get(_generic(path), {}).get(tree, tree) if isinstance(tree, str) else tree
    renamed = {}
    for name, value in tree.items():
        new = _new_name((*path, name))
        today = new.rpartition(".")[2] if new else name
        renamed[today] = _renamed(value, (*path, today))
    return renamed


def _new_name(path: tuple[int | str, ...]) -> str | None:
    return RENAMED.get(_generic(path))


def _generic(path: tuple[int | str, ...]) -> str:
    """Return the dotted name of a setting, with `*` for a method's name."""
    names = list(map(str, path))
    if len(names) > 2 and names[0] == "methods":
        names[1] = "*"
    return ".".join(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say to who wrote an unknown name: the nearest right one, or all that there are."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"


def _sentence(fault: Any) -> str:
    path, known = _place(fault["loc"])
    where = ".".join(path)
    if fault["type"] == "extra_forbidden" and (new := _new_name(fault["loc"])):
        return f"the setting {where!r} is now called {new.rpartition('.')[2]!r}; rename it"
    if fault["type"] == "extra_forbidden":
        return f"unknown setting {where!r}; {nearest(path[-1], known)}"
    if fault["type"] == "missing":
        return f"the setting {where!r} is missing; add it to the parameters"
    if fault["type"] == "literal_error" and (new := _new_value(fault)):
        return f"the setting {where!r} is {fault['input']!r}, which is now called {new!r}; rename it"
    if fault["type"] == "literal_error":
        return f"the setting {where!r} is {fault['input']!r}; {nearest(str(fault['input']), _choices(fault))}"
    if isinstance(fault["input"], bool) and fault["type"] == "string_type":
        quoted = "put yes, no, on, off, true or false in quotes"
        return f"the setting {where!r} is what YAML takes for {fault['input']}; {quoted}"
    got = "" if fault["type"] == "value_error" else f", got {fault['input']!r}"
    return f"the setting {where!r} cannot be used: {fault['msg'].removeprefix('Value error, ')}{got}"


def _new_value(fault: Any) -> str | None:
    return RENAMED_VALUES.get(_generic(fault["loc"]), {}).get(str(fault["input"]))


def _choices(fault: Any) -> list[str]:
    """The values that a setting may have, out of pydantic's `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", fault["ctx"]["expected"])


def _place(loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The path of a setting as it is written, and the names that are known beside it."""
    model: Any = Settings
    path: list[str] = []
    names: list[str] = []
    for part in loc:
        names = list(getattr(model, "model_fields", []))
        path.append(str(part))
        model = TaskSettings if model is Tasks else getattr(model, "model_fields", {}).get(part)
        model = getattr(model, "annotation", model)
        model = next((one for one in get_args(model) if hasattr(one, "model_fields")), model)  # of `… | None`
    return path, names
