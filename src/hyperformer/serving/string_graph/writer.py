"""Write string graphs, which render a bundle's template, tokenize, run its graph and choose a label."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx

from hyperformer.core import manifest, text
from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime import Bundle
from hyperformer.runtime.bundle import open_tokenizer
from hyperformer.runtime.files import choose_graph, list_graph_files, read_bundle
from hyperformer.serving.string_graph.comparison import Comparison, Row, iterate_batches, iterate_probes
from hyperformer.serving.string_graph.encoding import add_tokens
from hyperformer.serving.string_graph.graph import build_string_graph, build_token_graph, name_inputs
from hyperformer.serving.string_graph.nodes import Nodes


@dataclass(frozen=True)
class StringGraph:
    """The names of a string graph's inputs and outputs, and the number of rows that it was compared on."""

    inputs: list[str]
    outputs: list[str]
    rows: int


def write_string_graph(
    folder: Path, path: Path, rows: Iterable[Row] = (), int8: bool = False, allow_unpublished: bool = False
) -> StringGraph:
    """Write a bundle's task as one graph that maps the strings [B] of each column to `label` [B].

    `name_inputs` names the input of each column. The other outputs are the outputs of the bundle's graph, and
    `truncated` [B]: whether a row's text was truncated. The graph's tokens and answers are compared with the bundle's
    on `PROBES` and on `rows`; if any differ, the graph is not written.

    Args:
        folder: the bundle.
        path: the file to write, outside the bundle, in an existing folder.
        rows: rows to compare in addition to `PROBES`.
        int8: use the int8 graph.
        allow_unpublished: also write the graph of a bundle that is not published.

    Returns:
        The inputs and outputs of the graph, and the number of compared rows.

    Raises:
        HyperFormerError: the file would be in the bundle; the bundle is not published, was changed after the export,
            uses a shared base, has no graph of this precision or stores it in several files; no operators support the
            tokenizer; a row is invalid; or the tokens or the answer of a row differ.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise HyperFormerError(f"{path} is inside the bundle; expected a path outside of it. Choose another path.")
    bundle = Bundle(folder, precision="int8" if int8 else "float32", allow_unpublished=allow_unpublished)
    graph = choose_graph(folder, bundle.manifest, int8)
    description, contents = read_bundle(
        folder, lambda _: [graph, manifest.TOKENIZER], allow_unpublished=allow_unpublished
    )
    if description != bundle.manifest:
        raise HyperFormerError(f"{folder} was replaced while it was read. Run again.")
    if len(list_graph_files(graph, description.files)) > 1:
        raise HyperFormerError(
            f"{folder / graph} has external constants; expected a single file. Use the bundle's own graph, which takes "
            "token ids."
        )
    inputs, nodes = name_inputs(text.find_columns(description.text)), Nodes()
    tokenizer = open_tokenizer(contents[manifest.TOKENIZER])
    tokens = add_tokens(nodes, description.text, tokenizer, description.max_source_tokens, inputs)
    classifier = onnx.load_model_from_string(contents[graph])
    string_graph = build_string_graph(nodes, tokens, inputs.values(), classifier, description)
    compare = Comparison(bundle, inputs, build_token_graph(nodes, tokens, inputs.values()), string_graph)
    for batch in iterate_batches(chain(iterate_probes(list(inputs)), rows)):
        compare(batch)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        onnx.save_model(string_graph, Path(temporary) / path.name)
        (Path(temporary) / path.name).replace(path)
    return StringGraph(list(inputs.values()), [output.name for output in string_graph.graph.output], compare.rows)
