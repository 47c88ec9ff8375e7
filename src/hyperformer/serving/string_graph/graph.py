"""Write string graphs, which render a bundle's template, tokenize, run its graph and choose a label."""

from __future__ import annotations

import string
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions
from onnx import TensorProto, compose, helper
from tokenizers import Tokenizer

from hyperformer.core import manifest, prefix, text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import Manifest
from hyperformer.core.types import Answer, Source
from hyperformer.runtime import Bundle
from hyperformer.runtime.bundle import FATAL, open_tokenizer
from hyperformer.runtime.files import choose_graph, list_graph_files, read_bundle
from hyperformer.serving.string_graph.nodes import EXTENSIONS, Nodes
from hyperformer.serving.string_graph.tokenizing import Texts, choose_operators

Row = Mapping[str, Any]
INPUTS = ("input_ids", "attention_mask")
LABEL, PROBABILITIES, TRUNCATED = "label", "probabilities", "truncated"
OPSETS = helper.make_opsetid(EXTENSIONS, 1), helper.make_opsetid("ai.onnx.ml", 2)
BATCH = 64
"""Number of rows that are compared at once."""
TOLERANCE = 1e-4
"""Maximum difference between a probability from the string graph and the same probability from the bundle."""
PROBES = (
    "The film, though slow, didn't lose me: 9/10!",
    "",
    "  two  spaces\tand a tab \n",
    "Ça va? naïve café, cafe\u0301, ﬁne Ångström €5.00 — “quoted” …",
    "word " * 300,
    "Antidisestablishmentarianism" * 8,
    "Привет, мир! Ἀθηνᾶ. 你好。日本語 안녕 🙂🙂",
    "a</s><unk>[SEP] [CLS]<pad> b\u00a0c",
    "don\u00b4t \u1112\u1161\u11ab \u0438\u0306 \u304b\u3099 \U0001fa77 \ue000\ue001 \u0378\u0379 x\U000e0fff",
)
"""Texts on which every string graph is compared with its bundle.

They vary letter case, accents, spaces, scripts and length, and contain literal special tokens.
"""


@dataclass(frozen=True)
class StringGraph:
    """The names of a string graph's columns and outputs, and the number of rows that it was compared on."""

    columns: list[str]
    outputs: list[str]
    rows: int


def write_string_graph(folder: Path, path: Path, rows: Iterable[Row] = (), int8: bool = False) -> StringGraph:
    """Write a bundle's task as one graph that maps the strings [B] of each column to `label` [B].

    The other outputs are the outputs of the bundle's graph, and `truncated` [B]: whether a row's text was truncated.
    The graph's tokens and answers are compared with the bundle's on `PROBES` and on `rows`; if any differ, the graph is
    not written.

    Args:
        folder: the bundle.
        path: the file to write, outside the bundle, in an existing folder.
        rows: rows to compare in addition to `PROBES`.
        int8: use the int8 graph.

    Returns:
        The columns and outputs of the graph, and the number of compared rows.

    Raises:
        HyperFormerError: the file would be in the bundle; the bundle was changed after the export, uses a shared base,
            has no graph of this precision or stores it in several files; a column has the name of another value of the
            graph; no operators support the tokenizer; a row is invalid; or the tokens or the answer of a row differ.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise HyperFormerError(f"{path} is inside the bundle; expected a path outside of it. Choose another path.")
    bundle = Bundle(folder, precision="int8" if int8 else "float32")
    graph = choose_graph(folder, bundle.manifest, int8)
    description, contents = read_bundle(folder, lambda _: [graph, manifest.TOKENIZER])
    if description != bundle.manifest:
        raise HyperFormerError(f"{folder} was replaced while it was read. Run again.")
    if len(list_graph_files(graph, description.files)) > 1:
        raise HyperFormerError(
            f"{folder / graph} has external constants; expected a single file. Use the bundle's own graph, which takes "
            "token ids."
        )
    columns, nodes = list(dict.fromkeys(text.find_columns(description.text))), Nodes()
    tokenizer = open_tokenizer(contents[manifest.TOKENIZER])
    tokens = _add_tokens(nodes, description.text, tokenizer, description.max_source_tokens)
    classifier = onnx.load_model_from_string(contents[graph])
    string_graph = _build_string_graph(nodes, tokens, columns, classifier, description)
    compare = _Comparison(bundle, columns, _build_token_graph(nodes, tokens, columns), string_graph)
    for batch in _batches(chain(_probes(columns), rows)):
        compare(batch)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        onnx.save_model(string_graph, Path(temporary) / path.name)
        (Path(temporary) / path.name).replace(path)
    return StringGraph(columns, [output.name for output in string_graph.graph.output], compare.rows)


@dataclass(frozen=True)
class _Tokens:
    """Names of the values for the inputs of a bundle's graph [B, L], and of the flags of truncated rows [B]."""

    input_ids: str
    attention_mask: str
    truncated: str


def _add_tokens(nodes: Nodes, template: Source, tokenizer: Tokenizer, longest: int) -> _Tokens:
    """Add nodes that encode the columns as the tokenizer does, into at most `longest` tokens per row."""
    templates = [template] if isinstance(template, str) else list(template)
    operators = choose_operators(tokenizer)
    limited = [_limit(nodes, _render(nodes, t), longest) for t in templates]
    texts = [operators.encode(nodes, characters) for characters, _ in limited]
    special = prefix.get_special_tokens(tokenizer, len(texts))
    largest = nodes.constant(prefix.CHARACTERS * longest)
    lengths = [nodes("Min", encoded.lengths, largest) for encoded in texts]
    kept, truncated = _truncate(nodes, lengths, longest - sum(map(len, special)))
    for _, is_longer in limited:
        truncated = nodes("Or", truncated, is_longer)
    input_ids, attention_mask = _join(nodes, texts, kept, special)
    return _Tokens(input_ids, attention_mask, truncated)


def _limit(nodes: Nodes, texts: str, longest: int) -> tuple[str, str]:
    """Add nodes that limit texts [B] to `longest` chunks of `prefix.CHARACTERS` characters.

    No operator truncates strings, so each text is split into chunks, and its first chunks are joined.

    Returns:
        The names of the limited texts [B], and of the flags of texts that were longer [B].
    """
    pattern = nodes.strings(f"((?s:.{{{prefix.CHARACTERS}}}))")
    split = nodes.with_outputs("StringRegexSplitWithOffsets", 4, texts, pattern, pattern, domain=EXTENSIONS)
    bounds, largest, axis = split[3], nodes.constant(longest), nodes.constant([1])
    starts = nodes("Slice", bounds, nodes.constant([0]), nodes.constant([-1]))
    counts = nodes("Sub", nodes("Slice", bounds, axis, nodes.constant([sys.maxsize])), starts)
    kept = nodes("Min", counts, largest)
    width = nodes("Add", nodes("ReduceMax", kept, keepdims=0), nodes.constant(1))  # a text may have no chunk
    positions = nodes("Range", nodes.constant(0), width, nodes.constant(1))
    is_inside = nodes("Less", positions, nodes("Unsqueeze", kept, axis))
    indices = nodes("Add", nodes("Add", positions, nodes("Unsqueeze", starts, axis)), nodes.constant(1))
    chunks = nodes("Concat", nodes.strings(""), split[0], axis=0)  # the empty chunk pads shorter texts
    chosen = nodes("Gather", chunks, nodes("Where", is_inside, indices, nodes.constant(0)))
    joined = nodes.extension("StringJoin", chosen, nodes.strings(""), nodes.constant([1]))
    return joined, nodes("Greater", counts, largest)


def _render(nodes: Nodes, template: str) -> str:
    """Add nodes that insert the columns into a template; return the name of the texts [B]."""
    shape = nodes("Shape", text.find_columns(template)[0])
    rendered = ""
    for literal, column, _, _ in string.Formatter().parse(template):
        values = [nodes("Expand", nodes.strings(literal), shape)] if literal else []
        for value in [*values, *([column] if column else [])]:
            rendered = nodes.extension("StringConcat", rendered, value) if rendered else value
    return rendered


def _truncate(nodes: Nodes, lengths: Sequence[str], largest: int) -> tuple[list[str], str]:
    """Add nodes that share `largest` tokens between one or two texts.

    As in `tokenizers`, the longer text is truncated first, but not below the length of the shorter text. If that is
    not enough, each text gets half of the tokens.

    Returns:
        The names of the number of tokens to keep [B] of each text, and of the flags of truncated rows [B].
    """
    room = nodes.constant(largest)
    if len(lengths) == 1:
        return [nodes("Min", lengths[0], room)], nodes("Greater", lengths[0], room)
    first, second = lengths
    fits = nodes("LessOrEqual", nodes("Add", first, second), room)
    short, is_long = nodes("Min", first, second), nodes("Greater", first, second)
    long = nodes("Max", short, nodes("Sub", room, short))
    over = nodes("Greater", nodes("Add", short, long), room)
    short = nodes("Where", over, nodes.constant(largest // 2), short)
    long = nodes("Where", over, nodes.constant(largest - largest // 2), long)
    shared = nodes("Where", is_long, long, short), nodes("Where", is_long, short, long)
    kept = [nodes("Where", fits, length, share) for length, share in zip(lengths, shared, strict=True)]
    return kept, nodes("Not", fits)


def _join(
    nodes: Nodes, texts: Sequence[Texts], kept: Sequence[str], special: Sequence[Sequence[int]]
) -> tuple[str, str]:
    """Add nodes that insert special tokens around the kept tokens; return the names of token ids and mask [B, L]."""
    zero, step, axis = nodes.constant(0), nodes.constant(1), nodes.constant([1])
    lengths = nodes("Add", *kept) if len(kept) > 1 else kept[0]
    longest = nodes("ReduceMax", nodes("Add", lengths, nodes.constant(sum(map(len, special)))), keepdims=0)
    positions = nodes("Range", zero, longest, step)  # [L]
    ids, next_position = zero, nodes.constant(np.zeros((1, 1), dtype=np.int64))  # positions of the next token, [B, 1]
    for number, tokens in enumerate(special):
        for token in tokens:
            ids = nodes("Where", nodes("Equal", positions, next_position), nodes.constant(token), ids)
            next_position = nodes("Add", next_position, step)
        if number < len(texts):
            end = nodes("Add", next_position, nodes("Unsqueeze", kept[number], axis))
            is_after = nodes("GreaterOrEqual", positions, next_position)
            is_inside = nodes("And", is_after, nodes("Less", positions, end))
            start = nodes("Unsqueeze", texts[number].starts, axis)
            offsets = nodes("Add", nodes("Sub", positions, next_position), start)
            indices = nodes("Where", is_inside, offsets, zero)
            padded = nodes("Concat", texts[number].ids, nodes.constant([0]), axis=0)  # there may be no ids
            ids, next_position = nodes("Where", is_inside, nodes("Gather", padded, indices), ids), end
    return ids, nodes("Cast", nodes("Less", positions, next_position), to=TensorProto.INT64)


def _probes(columns: Sequence[str]) -> Iterator[Row]:
    """Yield one row per probe, so that each column contains each probe once."""
    for number in range(len(PROBES)):
        yield {column: PROBES[(number + index) % len(PROBES)] for index, column in enumerate(columns)}


def _strings(columns: Sequence[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(column, TensorProto.STRING, ["batch"]) for column in columns]


def build_token_graph(template: Source, tokenizer: Tokenizer, longest: int) -> onnx.ModelProto:
    """Build a graph that maps the strings [B] of a template's columns to token ids and their mask [B, L].

    Args:
        template: the template of the source text, or of both texts of a pair.
        tokenizer: a tokenizer without truncation and padding.
        longest: maximum number of tokens, to which a source is truncated.

    Returns:
        The graph.

    Raises:
        HyperFormerError: no operators support the tokenizer.
    """
    nodes = Nodes()
    tokens = _add_tokens(nodes, template, tokenizer, longest)
    return _build_token_graph(nodes, tokens, list(dict.fromkeys(text.find_columns(template))))


def _build_token_graph(nodes: Nodes, tokens: _Tokens, columns: Sequence[str]) -> onnx.ModelProto:
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, None)
        for name in (tokens.input_ids, tokens.attention_mask)
    ]
    graph = helper.make_graph(nodes.nodes, "tokens", _strings(columns), outputs, nodes.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), *OPSETS], ir_version=10)


def _build_string_graph(
    nodes: Nodes, tokens: _Tokens, columns: Sequence[str], classifier: onnx.ModelProto, description: Manifest
) -> onnx.ModelProto:
    """Add `nodes` before the bundle's graph, and nodes that choose the label after it.

    Raises:
        HyperFormerError: a column has the name of another value of the graph.
    """
    model = compose.add_prefix(classifier, "model/", rename_inputs=False, rename_outputs=False)
    graph = model.graph
    reserved = {*INPUTS, LABEL, TRUNCATED, *(output.name for output in graph.output)}
    conflicts = [column for column in columns if column in reserved]
    if conflicts:
        raise HyperFormerError(
            f"column {conflicts[0]!r} has a reserved name; expected none of {', '.join(sorted(reserved))}. Rename the "
            "column in the task's text and data."
        )
    after = Nodes(f"{LABEL}/")
    best = after("ArgMax", "scores", axis=-1, keepdims=0)
    values = {
        INPUTS[0]: tokens.input_ids,
        INPUTS[1]: tokens.attention_mask,
        LABEL: after("Gather", after.strings(*description.labels), best),
        TRUNCATED: tokens.truncated,
    }
    aliases = {name: helper.make_node("Identity", [value], [name], name=name) for name, value in values.items()}
    before = [*nodes.nodes, *(aliases[name] for name in INPUTS), *graph.node]
    end = [*after.nodes, aliases[LABEL], aliases[TRUNCATED]]
    outputs = [
        helper.make_tensor_value_info(LABEL, TensorProto.STRING, ["batch"]),
        *graph.output,
        helper.make_tensor_value_info(TRUNCATED, TensorProto.BOOL, ["batch"]),
    ]
    constants = [*nodes.constants, *graph.initializer, *after.constants]
    merged = helper.make_graph(
        [*before, *end], description.task, _strings(columns), outputs, constants, value_info=graph.value_info
    )
    model.graph.CopyFrom(merged)
    model.opset_import.extend(OPSETS)
    return model


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open an onnxruntime session of a graph, with the operators of onnxruntime-extensions."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    options.log_severity_level = FATAL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        yield batch


class _Comparison:
    """A comparison of a token graph and a string graph with their bundle; it counts the compared rows."""

    def __init__(
        self, bundle: Bundle, columns: Sequence[str], token_graph: onnx.ModelProto, string_graph: onnx.ModelProto
    ) -> None:
        self.rows = 0
        self._bundle, self._columns = bundle, columns
        self._token_session, self._session = open_session(token_graph), open_session(string_graph)

    def __call__(self, batch: Sequence[Row]) -> None:
        """Compare the tokens and answers of rows.

        Raises:
            HyperFormerError: the tokens or the answer of a row differ.
        """
        sources = [self._bundle.source(row) for row in batch]
        inputs = {column: np.array([str(row[column]) for row in batch], dtype=object) for column in self._columns}
        ids, masks = self._token_session.run(None, inputs)
        expected, _ = self._bundle.encode(sources)
        for source, row_ids, mask, expected_ids in zip(sources, ids, masks, expected, strict=True):
            if row_ids[mask == 1].tolist() != expected_ids:
                raise HyperFormerError(
                    f"the string graph and the task's tokenizer encode {source!r:.200} differently. The string graph "
                    "is not written; use the bundle's own graph, which takes token ids."
                )
        outputs = self._session.run([LABEL, PROBABILITIES, TRUNCATED], inputs)
        for source, label, probabilities, truncated, answer in zip(
            sources, *outputs, self._bundle.answer_sources(sources), strict=True
        ):
            if not _is_same(label, probabilities.tolist(), bool(truncated), answer):
                raise HyperFormerError(
                    f"the string graph and its bundle predict different outputs for {source!r:.200} (labels {label!r} "
                    f"and {answer.label!r}). The string graph is not written; use the bundle's own graph, which takes "
                    "token ids."
                )
        self.rows += len(batch)


def _is_same(label: str, probabilities: Sequence[float], truncated: bool, answer: Answer) -> bool:
    """Return whether a string graph's outputs equal the bundle's answer, except for rounding."""
    expected = list(answer.probabilities.values())
    difference = max(abs(left - right) for left, right in zip(probabilities, expected, strict=True))
    is_tie = answer.probabilities[answer.label] - answer.probabilities[label] <= 2 * TOLERANCE
    return difference <= TOLERANCE and is_tie and truncated == answer.truncated
