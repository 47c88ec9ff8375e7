"""Settings of a run: typed parameters that are validated before any work starts."""

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

MAX_ANSWERS = 1000
"""Maximum number of steps between the minimum and the maximum of a regression task."""
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class ConfigurationError(HyperFormerError):
    """An invalid setting."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbeddedSettings(_Settings):
    """Number of rows to generate for each task of the embedded language, by split."""

    train: Positive
    small_train: Positive
    """Number of training rows of a low-resource task, instead of `train`."""
    validation: Positive
    test: Positive


class T5Sizes(_Settings):
    """Sizes of the T5 to pretrain; names and meanings are those of transformers' `T5Config`."""

    d_model: Positive
    d_kv: Positive
    d_ff: Positive
    num_layers: Positive
    num_decoder_layers: Positive
    num_heads: Annotated[int, Field(ge=4)]
    """At least 4: in the encoder, two heads initially attend to adjacent tokens, and two to equal tokens."""
    dropout_rate: Fraction = 0.1
    feed_forward_proj: str = "relu"


class LoopSettings(_Settings):
    """Settings of the training loop that pretraining, training and transfer share."""

    steps: Positive
    """Number of optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0, lt=100)]
    """Peak learning rate, reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps of linear warm-up; the learning rate then decays linearly to 0 at the last step."""
    label_smoothing: Fraction = 0.0
    """Label smoothing of the cross-entropy loss, from 0 (off) to below 1."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward and backward pass. `auto`: bf16 if the GPU (or the CPU, if there is no GPU) supports it
    natively, otherwise fp32.
    """
    gradient_accumulation_steps: Positive = 1
    """Number of micro-batches that each batch is split into, grouped by length; only one is in memory at a time."""
    gradient_checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, more time."""


class PretrainingSettings(LoopSettings):
    """Settings to pretrain a small backbone from text."""

    batch_size: Positive
    """Rows per batch."""
    rows: Positive
    """Number of pretraining rows to generate."""
    text_file: str | None = None
    """UTF-8 text file with one paragraph per line, used together with the training texts of all tasks.
    null: generated text of the embedded language.
    """
    vocab_size: Positive
    """Maximum number of tokens of the tokenizer that is trained on the text."""
    sizes: T5Sizes
    max_tokens: Positive
    """Maximum length of a source and of a target, in tokens; longer texts are truncated."""
    noise_density: Fraction = 0.15
    """Fraction of a source's tokens that span corruption masks."""
    mean_noise_span_length: Annotated[float, Field(ge=1)] = 3.0
    """Mean length of a masked span, in tokens."""


class BackboneSettings(_Settings):
    """The pretrained model that all tasks share."""

    path: str
    """Local folder in the layout of transformers, or the name of a model on the Hugging Face Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; null: the default branch."""
    max_source_tokens: Positive
    """Maximum length of a source, in tokens, including special tokens; longer sources are truncated."""
    max_target_tokens: Positive | None = None
    """Maximum length of an answer, in tokens, including </s>. In a generative task, longer training answers are
    truncated, and generation stops at this length. In other tasks, a longer answer is an error. Required for seq2seq
    backbones, and not allowed for encoders.
    """


class DataSettings(_Settings):
    """Default source of rows, for tasks whose `source` has no `path`."""

    source: str
    """`embedded` (the generated tasks), a local folder, or the name of a dataset on the Hugging Face Hub."""


class SourceSettings(_Settings):
    """Location of a task's rows."""

    path: str | None = None
    """Any value that `data.source` can have; null: the value of `data.source`."""
    name: str | None = None
    """Subfolder of a local `path`, configuration name of a dataset on the Hub, or name of an embedded task.
    null: no subfolder, the default configuration, or the embedded task with the name of this task.
    """
    revision: str | None = None
    """Branch, tag or commit on the Hub; null: the default branch."""
    rows: Positive | None = None
    """Use only the first `rows` rows of each source split; rows from the Hub are then streamed. null: all rows."""


class SplitSettings(_Settings):
    """Origin of the rows of each split of a task.

    A value is the name of a source split, `halve_<name>` or `hold_out_<N>`. `halve_<name>` is a random half of the
    source split `<name>`; a split with the value `<name>` then has only the other half. `hold_out_<N>`, allowed for
    validation and test, moves N random rows from train to this split.
    """

    train: str = "train"
    validation: str = "validation"
    test: str = "test"

    @model_validator(mode="after")
    def _check_hold_out(self) -> SplitSettings:
        for split, source in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if source.startswith("hold_out_") and (split == "train" or not re.fullmatch(r"hold_out_[1-9]\d*", source)):
                raise ValueError(
                    f"{split} is {source!r}; expected the name of a split, or hold_out_<N> for validation and test"
                )
        return self


def _parse_source(value: Any) -> Source:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return value[0], value[1]
    raise ValueError(f"expected a string, or a list of two strings, got {value!r}")


class TaskSettings(_Settings):
    """A task: the location of its rows, their text template, and the possible answers."""

    source: SourceSettings = SourceSettings()
    text: Annotated[Source, BeforeValidator(_parse_source)]
    """Template of the source text, with column names in braces. A list of two templates makes a text pair, which an
    encoder's tokenizer encodes as a pair; for T5, the two texts are joined with a space.
    """
    kind: Literal["classification", "regression", "generation"]
    label_column: str
    """Column with the label (classification), the number (regression) or the text to generate (generation)."""
    labels: dict[str | int | bool, Annotated[str, Field(min_length=1)]] | None = None
    """Classification only: maps each value of the label column to its answer text."""
    minimum: FiniteFloat | None = None
    """Regression only: the smallest answer."""
    maximum: FiniteFloat | None = None
    """Regression only: upper limit of the answers."""
    step: FiniteFloat | None = None
    """Regression only: distance between adjacent answers, which are `minimum`, `minimum + step`, … up to `maximum`."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Metrics to compute. Their mean is the task's score in the choice of the best checkpoint."""
    splits: SplitSettings = SplitSettings()
    weight: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """Factor on the task's sampling probability, before the probabilities of all tasks are scaled to sum to 1."""

    @model_validator(mode="after")
    def _check_answers(self) -> TaskSettings:
        grid = (self.minimum, self.maximum, self.step)
        if self.kind == "classification":
            if self.labels is None or len(self.labels) < 2 or any(v is not None for v in grid):
                raise ValueError(
                    "a classification task must have at least two `labels`, and no minimum, maximum or step"
                )
            if len(set(self.labels.values())) < len(self.labels):
                raise ValueError("two labels have the same answer text; use a different text for each")
            if len({str(value) for value in self.labels}) < len(self.labels):
                raise ValueError("two labels have the same column value; use a different value for each")
        elif self.kind == "generation":
            if self.labels is not None or any(v is not None for v in grid):
                raise ValueError("a generative task must not have labels, minimum, maximum or step; remove them")
        elif self.labels is not None or any(v is None for v in grid):
            raise ValueError("a regression task must have `minimum`, `maximum` and `step`, and no labels")
        elif self.step <= 0 or self.maximum <= self.minimum:  # type: ignore[operator]
            raise ValueError("a regression task must have step > 0 and maximum > minimum")
        elif self.maximum - self.minimum < self.step:  # type: ignore[operator]
            raise ValueError("a regression task must have at least two answers; use a smaller step")
        elif (self.maximum - self.minimum) / self.step > MAX_ANSWERS:  # type: ignore[operator]
            raise ValueError(f"a regression task must have at most {MAX_ANSWERS} steps in its range; use a larger step")
        return self


class Tasks(RootModel[dict[str, TaskSettings]]):
    """All tasks by name; a name must be valid as the name of a folder."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _check_names(self) -> Tasks:
        for name in self.root:
            if not name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
                raise ValueError(
                    f"got the task name {name!r}; expected the name of a folder: no slash or backslash, no leading "
                    "dot, no control character, and not blank"
                )
        return self


class FineTuningSettings(_Settings):
    """Settings of full fine-tuning of the backbone: an empty block, because there is nothing to set."""


class AdapterSettings(_Settings):
    """Settings of all methods with adapters."""

    reduction_factor: Positive
    """The adapters' bottleneck dimension is the backbone's hidden size divided by this factor."""
    activation: Literal["gelu_new", "gelu", "relu", "silu", "tanh"] = "gelu_new"
    """Activation function of the adapters."""
    positions: Literal["both", "feed_forward", "self_attention"] = "both"
    """Sublayers of each block after which adapters are inserted."""
    stacks: Literal["both", "encoder", "decoder"] = "both"
    """Stacks whose blocks have adapters."""
    adapter_init: Literal["paper", "identity"] = "paper"
    """Initial effect of the adapters. `paper`: a small random change, as in the authors' code. `identity`: no change,
    because gain and shift of the adapters' layer norms start at 0. Use `identity` for backbones whose sublayers have
    small outputs, such as BERT: the layer norm of `paper` amplifies the random change until it dominates these outputs.
    """


class ProjectorSettings(_Settings):
    """Sizes of the two-layer MLP between the embeddings and the generators."""

    hidden_dim: Positive
    output_dim: Positive


class HyperFormerSettings(AdapterSettings):
    """Settings of HyperFormer, which has a separate hypernetwork for each block and position."""

    head: Literal["generated", "trained"] = "generated"
    """Weights of each task's head on an encoder backbone. `generated`: generated from the task embedding; `trained`:
    trained directly, separately for each task. Without effect on a seq2seq backbone.
    """

    task_embedding_dim: Positive
    """Size of the task embeddings and, in HyperFormer++, of the layer and position embeddings."""
    projector: ProjectorSettings | None
    """Projector of the embeddings; null: the embeddings are the generators' input."""
    layer_norm: Literal["conditional", "conditional_from_one", "unconditional"] = "conditional"
    """Layer norm of the adapters. `conditional`: gain and shift are generated, and the gain starts near 0, as in the
    authors' code; `conditional_from_one`: the generated gain starts near 1; `unconditional`: one trained layer norm per
    adapter site, shared by all tasks.
    """

    @model_validator(mode="after")
    def _check_identity(self) -> HyperFormerSettings:
        if self.adapter_init == "identity" and self.layer_norm == "conditional_from_one":
            raise ValueError(
                "adapter_init: identity requires gains that start at 0, but layer_norm is conditional_from_one; use "
                "layer_norm: conditional"
            )
        return self


class HyperFormerPlusPlusSettings(HyperFormerSettings):
    """Settings of HyperFormer++, which has one hypernetwork per stack."""

    share_layers: bool = True
    """Use the same generators for all layers of a stack, conditioned on layer embeddings. false: separate generators
    for each layer, without layer embeddings.
    """


class MethodSettings(_Settings):
    """Name of a method and its settings."""

    name: str
    settings: SerializeAsAny[AdapterSettings | FineTuningSettings]


class Methods(_Settings):
    """Settings of each method, by its name; a run uses the settings of the method that the setting `method` names."""

    hyperformer_plus_plus: HyperFormerPlusPlusSettings | None = None
    hyperformer: HyperFormerSettings | None = None
    adapters_multi_task: AdapterSettings | None = None
    adapters_per_task: AdapterSettings | None = None
    fine_tuning_multi_task: FineTuningSettings | None = None
    fine_tuning_per_task: FineTuningSettings | None = None

    def get_method(self, name: str) -> MethodSettings:
        """Return a method's settings by its name.

        Raises:
            ConfigurationError: There is no such method, or `methods` has no settings for it.
        """
        settings = getattr(self, name, None) if name in type(self).model_fields else None
        if settings is None:
            present = [known for known in type(self).model_fields if getattr(self, known) is not None]
            raise ConfigurationError(
                f"the setting 'method' is {name!r}, but `methods` has no block of that name; "
                f"{suggest_name(name, present)}"
            )
        return MethodSettings(name=name, settings=settings)


class TrainingSettings(LoopSettings):
    """Settings of multi-task training."""

    batch_size: Positive | None = None
    """Rows per batch, summed over all processes. Set either `batch_size` or `batch_tokens`."""
    batch_tokens: Positive | None = None
    """Maximum number of source tokens per batch. A batch has as many rows as fit, but at least one row."""
    temperature: Annotated[float, Field(gt=0)]
    """Temperature T of task sampling: the probability of a task is proportional to weight · rows^(1/T).
    With equal weights, T = 1 samples in proportion to the number of rows; a high T samples all tasks almost equally.
    """
    evaluate_every: Positive
    """Steps between validations. The checkpoint with the best mean metric is kept."""
    validation_rows: Positive
    """Use at most this many validation rows per task during training."""
    patience: Positive | None = None
    """Stop after this many validations without a better mean metric; null: never stop early."""
    processes: Positive = 1
    """Processes on each machine, which divide every batch among them; with GPUs, at most one process per GPU."""
    machines: Positive = 1
    """Number of machines that train together."""
    rendezvous: str | None = None
    """host:port, required for several machines: the host name of the first machine, and a free port on it."""
    resume_from: str | None = None
    """Folder of resume states in another location, from which training resumes; rejected if the states were written
    with other code, settings or data.
    """

    @model_validator(mode="after")
    def _check_batches(self) -> TrainingSettings:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError("expected either batch_size or batch_tokens, and not both")
        if self.batch_tokens is not None and self._micro_batches > 1:
            raise ValueError(
                "batch_tokens cannot be combined with several processes or gradient accumulation; use batch_size"
            )
        if self.batch_size is not None and self.batch_size < self._micro_batches:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected at least {self._micro_batches}, the product of processes, "
                "machines and gradient_accumulation_steps. Increase batch_size, or decrease one of them"
            )
        if (self.machines > 1) != (self.rendezvous is not None):
            raise ValueError(
                f"machines is {self.machines} and rendezvous is {self.rendezvous!r}; set rendezvous to host:port for "
                "several machines, and to null for one machine"
            )
        if self.rendezvous is not None and not re.fullmatch(r"[^:\s]+:\d+", self.rendezvous):
            raise ValueError(f"rendezvous is {self.rendezvous!r}; expected host:port")
        return self

    @property
    def _micro_batches(self) -> int:
        return self.processes * self.machines * self.gradient_accumulation_steps


class TransferSettings(LoopSettings):
    """Settings of few-shot transfer, which adapts a trained model to new tasks without validation rows."""

    checkpoint: str
    """Trained model: a local folder, or the name of a model on the Hugging Face Hub."""
    backbone: str | None = None
    """Location of the model's backbone; null: the location that is stored in the checkpoint."""
    samples: Positive | None = None
    """Training rows per task, sampled with the seed; null: all rows."""
    initialize_from: Literal["nearest", "mean", "random"] = "nearest"
    """Initial task-specific weights of a new task (its embedding; for Adapters†, its adapters). `nearest`: the weights
    of the trained task with the lowest loss on the new task's rows; `mean`: the mean of all trained tasks' weights;
    `random`: new random weights.
    """
    train: Literal["all", "task_specific"] = "all"
    """Weights to train: all that the method trains, or only the task-specific ones."""
    batch_size: Positive
    """Rows per batch."""


class EvaluationSettings(_Settings):
    """Settings of inference on the evaluation rows."""

    batch_size: Positive
    """Rows per batch."""
    label_scoring: Scoring | Literal["generated"] = "constrained"
    """Prediction in classification and regression tasks. `constrained`: score each answer, with the probability of each
    of its tokens normalized over the tokens that can follow in the task's answers; `likelihood`: score each answer,
    with the probabilities normalized over the whole vocabulary; `generated`: use the text that the backbone generates,
    as in the paper. Scores predict the most likely label or, in regression, the mean of the numbers weighted by
    probability. On an encoder, `likelihood` equals `constrained`, and `generated` is not allowed.
    """
    num_beams: Positive = 1
    """Beams of beam search when text is generated; 1 is greedy decoding."""


class ExportSettings(_Settings):
    """Settings of the ONNX export."""

    opset: Annotated[int, Field(ge=18)]
    """ONNX opset version of the exported graphs."""
    tolerance: Annotated[float, Field(gt=0)]
    """Maximum difference between a score in the ONNX graph and in PyTorch, on nearly all texts. If the scores of two
    answers differ by at most this much, either may be the prediction.
    """


class Settings(_Settings):
    """All settings of a Kedro environment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of everything random: splits, initial weights and the order of rows."""
    embedded: EmbeddedSettings
    pretraining: PretrainingSettings
    backbone: BackboneSettings
    data: DataSettings
    tasks: Tasks
    method: str
    """Method to train: the name of one of the blocks of `methods`."""
    methods: Methods
    training: TrainingSettings
    transfer: TransferSettings
    evaluation: EvaluationSettings
    export: ExportSettings

    @property
    def chosen_method(self) -> MethodSettings:
        """The settings of the method that `method` names."""
        return self.methods.get_method(self.method)


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
"""Name of a setting in version 0.1 → its current name; `*` stands for the name of a method."""
RENAMED_VALUES = {
    "methods.*.adapter_init": {"authors": "paper"},
    "transfer.initialize_from": {"noise": "random"},
    "transfer.train": {"own": "task_specific"},
}
"""Current name of a setting → its value in version 0.1 → the current value."""


def check_settings(parameters: dict[str, Any]) -> Settings:
    """Validate a parameter tree and return its typed settings.

    Raises:
        ConfigurationError: Keys are unknown, renamed or missing, or values are invalid; the message lists all of them.
            Or `methods` has no settings for the value of `method`.
    """
    try:
        settings = Settings.model_validate(parameters)
    except ValidationError as error:
        errors = error.errors()
        renamed = {_new_name(e["loc"]) for e in errors if e["type"] == "extra_forbidden"}
        messages = [_message(e) for e in errors if e["type"] != "missing" or _generic(e["loc"]) not in renamed]
        raise ConfigurationError("; ".join(messages)) from None
    settings.methods.get_method(settings.method)
    return settings


def rename_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """Replace the names and values of version 0.1 in a parameter tree by the current ones."""
    return _renamed(parameters, ())


def _renamed(tree: Any, path: tuple[int | str, ...]) -> Any:
    if not isinstance(tree, dict):
        return RENAMED_VALUES.get(_generic(path), {}).get(tree, tree) if isinstance(tree, str) else tree
    renamed = {}
    for name, value in tree.items():
        new = _new_name((*path, name))
        current = new.rpartition(".")[2] if new else name
        renamed[current] = _renamed(value, (*path, current))
    return renamed


def _new_name(path: tuple[int | str, ...]) -> str | None:
    return RENAMED.get(_generic(path))


def _generic(path: tuple[int | str, ...]) -> str:
    """Return the dotted name of a setting, with `*` in place of a method's name."""
    names = list(map(str, path))
    if len(names) > 2 and names[0] == "methods":
        names[1] = "*"
    return ".".join(names)


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: the most similar known name, or all known names if none is similar."""
    similar = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {similar[0]!r}?" if similar else f"expected one of {', '.join(sorted(known))}"


def _message(error: Any) -> str:
    path, known = _resolve(error["loc"])
    setting = ".".join(path)
    if error["type"] == "extra_forbidden" and (new := _new_name(error["loc"])):
        return f"the setting {setting!r} is now called {new.rpartition('.')[2]!r}; rename it"
    if error["type"] == "extra_forbidden":
        return f"unknown setting {setting!r}; {suggest_name(path[-1], known)}"
    if error["type"] == "missing":
        return f"the setting {setting!r} is missing; add it to the parameters"
    if error["type"] == "literal_error" and (new := _new_value(error)):
        return f"the setting {setting!r} is {error['input']!r}, which is now called {new!r}; rename it"
    if error["type"] == "literal_error":
        return f"the setting {setting!r} is {error['input']!r}; {suggest_name(str(error['input']), _choices(error))}"
    if isinstance(error["input"], bool) and error["type"] == "string_type":
        advice = "Quote yes, no, on, off, true and false in YAML"
        return f"the setting {setting!r} is the boolean {error['input']}; expected a string. {advice}"
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"the setting {setting!r} is invalid: {error['msg'].removeprefix('Value error, ')}{got}"


def _new_value(error: Any) -> str | None:
    return RENAMED_VALUES.get(_generic(error["loc"]), {}).get(str(error["input"]))


def _choices(error: Any) -> list[str]:
    """Return the allowed values of a setting from pydantic's text `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _resolve(loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Return the path of a setting, and the names that its block may have."""
    model: Any = Settings
    path: list[str] = []
    names: list[str] = []
    for part in loc:
        names = list(getattr(model, "model_fields", []))
        path.append(str(part))
        model = TaskSettings if model is Tasks else getattr(model, "model_fields", {}).get(part)
        model = getattr(model, "annotation", model)
        model = next((kind for kind in get_args(model) if hasattr(kind, "model_fields")), model)  # of `… | None`
    return path, names
