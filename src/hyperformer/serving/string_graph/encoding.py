"""Add nodes that render a template and encode the texts of its rows as a tokenizer does."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto
from tokenizers import Tokenizer

from hyperformer.core import prefix, text
from hyperformer.core.types import Source
from hyperformer.serving.string_graph.nodes import EXTENSIONS, Nodes
from hyperformer.serving.string_graph.tokenizing import Texts, choose_operators


@dataclass(frozen=True)
class Tokens:
    """Names of the values for the inputs of a bundle's graph [B, L], and of the flags of truncated rows [B]."""

    input_ids: str
    attention_mask: str
    truncated: str


def add_tokens(nodes: Nodes, template: Source, tokenizer: Tokenizer, longest: int, inputs: Mapping[str, str]) -> Tokens:
    """Add nodes that encode the columns as the tokenizer does, into at most `longest` tokens per row.

    `inputs` has the name of the graph's input of each column.
    """
    templates = [template] if isinstance(template, str) else list(template)
    operators = choose_operators(tokenizer)
    limited = [_limit(nodes, _render(nodes, t, inputs), longest) for t in templates]
    texts = [operators.encode(nodes, characters) for characters, _ in limited]
    special = prefix.get_special_tokens(tokenizer, len(texts))
    largest = nodes.constant(prefix.CHARACTERS * longest)
    lengths = [nodes("Min", encoded.lengths, largest) for encoded in texts]
    kept, truncated = _truncate(nodes, lengths, longest - sum(map(len, special)))
    for _, is_longer in limited:
        truncated = nodes("Or", truncated, is_longer)
    input_ids, attention_mask = _join(nodes, texts, kept, special)
    return Tokens(input_ids, attention_mask, truncated)


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


def _render(nodes: Nodes, template: str, inputs: Mapping[str, str]) -> str:
    """Add nodes that insert the columns into a template; return the name of the texts [B]."""
    shape = nodes("Shape", inputs[text.find_columns(template)[0]])
    rendered = ""
    for literal, column in text.parse_template(template):
        values = [nodes("Expand", nodes.strings(literal), shape)] if literal else []
        for value in [*values, *([] if column is None else [inputs[column]])]:
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
