"""A bundle's graph, with its template and tokenizer before it and the label after it."""

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

from hyperformer import manifest, prefix, text
from hyperformer.manifest import Manifest
from hyperformer.runtime import Bundle
from hyperformer.runtime.bundle import FATAL, open_tokenizer
from hyperformer.runtime.files import graph_files, graph_name, read_bundle
from hyperformer.string_graph.nodes import CONTRIBUTED, Nodes
from hyperformer.string_graph.tokenizing import Texts, operators
from hyperformer.types import Answer, HyperFormerError, Source

Row = Mapping[str, Any]
INPUTS = ("input_ids", "attention_mask")
LABEL, PROBABILITIES, TRUNCATED = "label", "probabilities", "truncated"
OPSETS = helper.make_opsetid(CONTRIBUTED, 1), helper.make_opsetid("ai.onnx.ml", 2)
BATCH = 64  # rows that are compared at once
NEAR = 1e-4  # by which probabilities of the same tokens may differ
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
"""What every graph is tried on: cases, marks, spaces, scripts, what is too long, and what looks like special tokens."""


@dataclass(frozen=True)
class Written:
    """What a string graph takes and gives, and on how many rows it was compared with its bundle."""

    columns: list[str]
    outputs: list[str]
    rows: int


def write_string_graph(folder: Path, path: Path, rows: Iterable[Row] = (), int8: bool = False) -> Written:
    """Writes a bundle's task as one graph: strings [B] of each column → `label` [B], and what the bundle's graph gives.

    `truncated` [B] says which texts were cut. Tokens and answers are compared with the bundle's on rows that try a
    tokenizer and on the given ones; a graph that reads or answers one otherwise is not written.

    Args:
        folder: the bundle.
        path: the file to write, outside of the bundle; its folder must be there.
        rows: more rows to compare on.
        int8: takes the graph in int8.
    Raises:
        HyperFormerError: the file would be in the bundle; the bundle is not what was exported, is on a shared base,
            lacks the graph or has one of several files; a column is named as a value of the graph is; its tokenizer has
            no operators; or a row differs.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise HyperFormerError(f"{path} is in the bundle itself, whose files are signed; write it beside the bundle")
    bundle = Bundle(folder, precision="int8" if int8 else "float32")
    graph = graph_name(folder, bundle.manifest, int8)
    found, contents = read_bundle(folder, lambda _: [graph, manifest.TOKENIZER])
    if found != bundle.manifest:
        raise HyperFormerError(f"{folder} was replaced while it was read; run again")
    if len(graph_files(graph, found.files)) > 1:
        raise HyperFormerError(
            f"{folder / graph} has its constants in a file of its own; give tokens to the bundle's graph"
        )
    columns, nodes = list(dict.fromkeys(text.columns(found.text))), Nodes()
    tokens = _tokens(nodes, found.text, open_tokenizer(contents[manifest.TOKENIZER]), found.max_source_tokens)
    whole = _whole(nodes, tokens, columns, onnx.load_model_from_string(contents[graph]), found)
    compare = _Compared(bundle, columns, _tokens_only(nodes, tokens, columns), whole)
    for batch in _batches(chain(_probes(columns), rows)):
        compare(batch)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
        onnx.save_model(whole, Path(beside) / path.name)
        (Path(beside) / path.name).replace(path)
    return Written(columns, [output.name for output in whole.graph.output], compare.rows)


@dataclass(frozen=True)
class _Tokens:
    """Names of what a bundle's graph is given, [B, L], and of whether each row's text was cut, [B]."""

    input_ids: str
    attention_mask: str
    truncated: str


def _tokens(nodes: Nodes, template: Source, tokenizer: Tokenizer, longest: int) -> _Tokens:
    """Adds what reads the columns as the tokenizer does."""
    templates = [template] if isinstance(template, str) else list(template)
    reads = operators(tokenizer)
    limited = [_limited(nodes, _rendered(nodes, one), longest) for one in templates]
    texts = [reads.texts(nodes, one) for one, _ in limited]
    marks = prefix.special_tokens(tokenizer, len(texts))
    most = nodes.constant(prefix.CHARACTERS * longest)
    lengths = [nodes("Min", one.lengths, most) for one in texts]
    kept, truncated = _cut(nodes, lengths, longest - sum(map(len, marks)))
    for _, is_longer in limited:
        truncated = nodes("Or", truncated, is_longer)
    input_ids, attention_mask = _joined(nodes, texts, kept, marks)
    return _Tokens(input_ids, attention_mask, truncated)


def _limited(nodes: Nodes, texts: str, longest: int) -> tuple[str, str]:
    """Adds what takes the characters of texts [B] that are read; gives these, and whether a text has more, [B].

    No operator cuts strings at a number of characters: they are split into chunks, of which the first are joined again.
    """
    pattern = nodes.words(f"((?s:.{{{prefix.CHARACTERS}}}))")
    split = nodes.several("StringRegexSplitWithOffsets", 4, texts, pattern, pattern, domain=CONTRIBUTED)
    bounds, most, rows = split[3], nodes.constant(longest), nodes.constant([1])
    starts = nodes("Slice", bounds, nodes.constant([0]), nodes.constant([-1]))
    counts = nodes("Sub", nodes("Slice", bounds, rows, nodes.constant([sys.maxsize])), starts)
    kept = nodes("Min", counts, most)
    width = nodes("Add", nodes("ReduceMax", kept, keepdims=0), nodes.constant(1))  # a text may have no chunk
    places = nodes("Range", nodes.constant(0), width, nodes.constant(1))
    inside = nodes("Less", places, nodes("Unsqueeze", kept, rows))
    at = nodes("Add", nodes("Add", places, nodes("Unsqueeze", starts, rows)), nodes.constant(1))
    chunks = nodes("Concat", nodes.words(""), split[0], axis=0)  # the first for where a text has no more
    chosen = nodes("Gather", chunks, nodes("Where", inside, at, nodes.constant(0)))
    joined = nodes.contributed("StringJoin", chosen, nodes.words(""), nodes.constant([1]))
    return joined, nodes("Greater", counts, most)


def _rendered(nodes: Nodes, template: str) -> str:
    """Adds what puts columns into a template; gives texts [B]."""
    shape = nodes("Shape", text.columns(template)[0])
    whole = ""
    for literal, column, _, _ in string.Formatter().parse(template):
        parts = [nodes("Expand", nodes.words(literal), shape)] if literal else []
        for part in [*parts, *([column] if column else [])]:
            whole = nodes.contributed("StringConcat", whole, part) if whole else part
    return whole


def _cut(nodes: Nodes, lengths: Sequence[str], most: int) -> tuple[list[str], str]:
    """Adds what shares `most` tokens among texts of these lengths; gives what is kept of each, and whether it is less.

    Of two texts the longer is cut first, down to the shorter, then both alike, as `tokenizers` does.
    """
    room = nodes.constant(most)
    if len(lengths) == 1:
        return [nodes("Min", lengths[0], room)], nodes("Greater", lengths[0], room)
    first, second = lengths
    fits = nodes("LessOrEqual", nodes("Add", first, second), room)
    short, is_long = nodes("Min", first, second), nodes("Greater", first, second)
    long = nodes("Max", short, nodes("Sub", room, short))
    over = nodes("Greater", nodes("Add", short, long), room)
    short = nodes("Where", over, nodes.constant(most // 2), short)
    long = nodes("Where", over, nodes.constant(most - most // 2), long)
    cut = nodes("Where", is_long, long, short), nodes("Where", is_long, short, long)
    return [nodes("Where", fits, one, less) for one, less in zip(lengths, cut, strict=True)], nodes("Not", fits)


def _joined(
    nodes: Nodes, texts: Sequence[Texts], kept: Sequence[str], marks: Sequence[Sequence[int]]
) -> tuple[str, str]:
    """Adds what puts special tokens around what is kept of each text; gives token ids and their mask, [B, L]."""
    zero, one, rows = nodes.constant(0), nodes.constant(1), nodes.constant([1])
    lengths = nodes("Add", *kept) if len(kept) > 1 else kept[0]
    longest = nodes("ReduceMax", nodes("Add", lengths, nodes.constant(sum(map(len, marks)))), keepdims=0)
    places = nodes("Range", zero, longest, one)  # [L]
    ids, place = zero, nodes.constant(np.zeros((1, 1), dtype=np.int64))  # where the next token is, [B, 1]
    for number, tokens in enumerate(marks):
        for token in tokens:
            ids = nodes("Where", nodes("Equal", places, place), nodes.constant(token), ids)
            place = nodes("Add", place, one)
        if number < len(texts):
            end = nodes("Add", place, nodes("Unsqueeze", kept[number], rows))
            inside = nodes("And", nodes("GreaterOrEqual", places, place), nodes("Less", places, end))
            start = nodes("Unsqueeze", texts[number].starts, rows)
            chosen = nodes("Where", inside, nodes("Add", nodes("Sub", places, place), start), zero)
            given = nodes("Concat", texts[number].ids, nodes.constant([0]), axis=0)  # there may be none
            ids, place = nodes("Where", inside, nodes("Gather", given, chosen), ids), end
    return ids, nodes("Cast", nodes("Less", places, place), to=TensorProto.INT64)


def _probes(columns: Sequence[str]) -> Iterator[Row]:
    """Each probe in each column, beside others."""
    for number in range(len(PROBES)):
        yield {column: PROBES[(number + place) % len(PROBES)] for place, column in enumerate(columns)}


def _strings(columns: Sequence[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(column, TensorProto.STRING, ["batch"]) for column in columns]


def reading(template: Source, tokenizer: Tokenizer, longest: int) -> onnx.ModelProto:
    """A graph of a template's columns, strings [B] → token ids and their mask, [B, L], cut to the longest.

    Raises:
        HyperFormerError: the tokenizer has no operators.
    """
    nodes = Nodes()
    tokens = _tokens(nodes, template, tokenizer, longest)
    return _tokens_only(nodes, tokens, list(dict.fromkeys(text.columns(template))))


def _tokens_only(nodes: Nodes, tokens: _Tokens, columns: Sequence[str]) -> onnx.ModelProto:
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, None)
        for name in (tokens.input_ids, tokens.attention_mask)
    ]
    graph = helper.make_graph(nodes.nodes, "tokens", _strings(columns), outputs, nodes.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), *OPSETS], ir_version=10)


def _whole(
    nodes: Nodes, tokens: _Tokens, columns: Sequence[str], given: onnx.ModelProto, found: Manifest
) -> onnx.ModelProto:
    """The bundle's graph with the nodes before it, and the label after it."""
    model = compose.add_prefix(given, "model/", rename_inputs=False, rename_outputs=False)
    graph = model.graph
    taken = {*INPUTS, LABEL, TRUNCATED, *(output.name for output in graph.output)}
    clash = [column for column in columns if column in taken]
    if clash:
        raise HyperFormerError(
            f"the task's column {clash[0]!r} is named as a value of its graph, expected none of "
            f"{', '.join(sorted(taken))}; rename the column in the task's text and data"
        )
    after = Nodes(f"{LABEL}/")
    best = after("ArgMax", "scores", axis=-1, keepdims=0)
    ends = {
        INPUTS[0]: tokens.input_ids,
        INPUTS[1]: tokens.attention_mask,
        LABEL: after("Gather", after.words(*found.labels), best),
        TRUNCATED: tokens.truncated,
    }
    named = {name: helper.make_node("Identity", [value], [name], name=name) for name, value in ends.items()}
    inner = [*nodes.nodes, *(named[name] for name in INPUTS), *graph.node]
    outer = [*after.nodes, named[LABEL], named[TRUNCATED]]
    outputs = [
        helper.make_tensor_value_info(LABEL, TensorProto.STRING, ["batch"]),
        *graph.output,
        helper.make_tensor_value_info(TRUNCATED, TensorProto.BOOL, ["batch"]),
    ]
    constants = [*nodes.constants, *graph.initializer, *after.constants]
    made = helper.make_graph(
        [*inner, *outer], found.task, _strings(columns), outputs, constants, value_info=graph.value_info
    )
    model.graph.CopyFrom(made)
    model.opset_import.extend(OPSETS)
    return model


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """onnxruntime's session of a graph with the operators of onnxruntime-extensions."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    options.log_severity_level = FATAL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    given = iter(rows)
    while batch := list(islice(given, BATCH)):
        yield batch


class _Compared:
    """Compares graphs with a bundle, and counts the rows."""

    def __init__(
        self, bundle: Bundle, columns: Sequence[str], reading: onnx.ModelProto, whole: onnx.ModelProto
    ) -> None:
        self.rows = 0
        self._bundle, self._columns = bundle, columns
        self._reading, self._whole = opened(reading), opened(whole)

    def __call__(self, batch: Sequence[Row]) -> None:
        """Compares tokens and answers of rows.

        Raises:
            HyperFormerError: a row is read or answered otherwise.
        """
        sources = [self._bundle.source(row) for row in batch]
        given = {column: np.array([str(row[column]) for row in batch], dtype=object) for column in self._columns}
        ids, mask = self._reading.run(None, given)
        expected, _ = self._bundle.encode(sources)
        for source, own, kept, right in zip(sources, ids, mask, expected, strict=True):
            if own[kept == 1].tolist() != right:
                raise HyperFormerError(
                    f"the graph of strings reads {source!r:.200} otherwise than the task's tokenizer, as there are no "
                    "operators that read it alike; it is not written: give tokens to the bundle's graph"
                )
        found = self._whole.run([LABEL, PROBABILITIES, TRUNCATED], given)
        for source, label, shares, cut, answer in zip(
            sources, *found, self._bundle.answer_sources(sources), strict=True
        ):
            if not _same(label, shares.tolist(), bool(cut), answer):
                raise HyperFormerError(
                    f"the graph of strings answers {source!r:.200} by {label!r}, its bundle by {answer.label!r}; it is "
                    "not written"
                )
        self.rows += len(batch)


def _same(label: str, shares: Sequence[float], cut: bool, answer: Answer) -> bool:
    """Whether an answer is the bundle's, but for rounding."""
    expected = list(answer.probabilities.values())
    far = max(abs(one - other) for one, other in zip(shares, expected, strict=True))
    near = answer.probabilities[answer.label] - answer.probabilities[label] <= 2 * NEAR
    return far <= NEAR and near and cut == answer.truncated
