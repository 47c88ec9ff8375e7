"""Exported generative tasks: optimum alone generates the same texts as PyTorch."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from datasets import Dataset
from processes import run_fork
from toys import make_baselines, method_settings
from transformers import (
    AutoTokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from hyperformer import evaluation
from hyperformer.backbones import t5_tokenizers
from hyperformer.core import manifest
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import GENERATION, MODEL_CARD
from hyperformer.data.storage import write_rows
from hyperformer.export import graphs
from hyperformer.export.bundle import export
from hyperformer.model.multi_task import MultiTaskModel
from hyperformer.runtime import load
from hyperformer.settings import BackboneSettings, EvaluationSettings, ExportSettings, Tasks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")

SIZES = {"d_model": 16, "d_ff": 24, "num_layers": 2, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILIES: dict[str, tuple[type[PreTrainedModel], Any, dict[str, Any]]] = {
    "t5": (T5ForConditionalGeneration, T5Config, {"num_heads": 4, "d_kv": 4}),
    "flan": (T5ForConditionalGeneration, T5Config, {"num_heads": 3, "d_kv": 8, **GATED}),
    "mt5": (MT5ForConditionalGeneration, MT5Config, {"num_heads": 3, "d_kv": 8, "num_decoder_layers": 1, **GATED}),
}
ECHO = {"text": "say: {sentence}", "kind": "generation", "label_column": "sentence", "metrics": ["exact_match"]}
ROWS = [
    {"sentence": f"the {noun} is dull{more}"} for noun in ("film", "book", "song") for more in ("", " and not lovely")
]
BY_OPTIMUM = """
import json, sys
from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import AutoTokenizer
model, tokenizer = ORTModelForSeq2SeqLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
batch = tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt", return_token_type_ids=False)
print(json.dumps([model.generate(**batch, num_beams=beams, max_new_tokens=9).tolist() for beams in (1, 3)]))
print([name for name in sys.modules if name.startswith("hyperformer")])
"""


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> MultiTaskModel:
    """Make a random model whose generated text depends on its input."""
    folder = tmp_path_factory.mktemp("model")
    kind, config, sizes = FAMILIES[request.param]
    t5_tokenizers.train_tokenizer(texts, 240).save_pretrained(folder)
    torch.manual_seed(3)
    random = kind(config(vocab_size=240, **SIZES, **sizes))
    with torch.no_grad():
        for parameter in random.parameters():
            parameter.normal_(std=0.8)
    random.save_pretrained(folder)
    settings = BackboneSettings(path=str(folder), max_source_tokens=32, max_target_tokens=9)
    model = MultiTaskModel(settings, method_settings("hyperformer_plus_plus"), Tasks({"echo": ECHO}))
    model.backbone.freeze()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def bundle(model: MultiTaskModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    rows = Dataset.from_list(ROWS)
    (folder / "rows").mkdir()
    write_rows({"echo": {"train": rows, "validation": rows, "test": rows}})(folder / "rows")
    model.save_pretrained(folder / "checkpoint")
    evaluation_settings, export_settings = EvaluationSettings(batch_size=4), ExportSettings(opset=18, tolerance=1e-4)
    metrics, _ = evaluation.evaluate_all(
        partial(model.answer, settings=evaluation_settings), model.tasks, folder / "rows"
    )
    (folder / "onnx").mkdir()
    baselines = make_baselines(["echo"], mean=101.0)
    export(folder / "checkpoint", folder / "rows", metrics, baselines, export_settings, evaluation_settings)(
        folder / "onnx"
    )
    return folder / "onnx" / "echo"


def test_plain_optimum_gives_torchs_token_ids_greedy_and_with_beams(model, bundle):
    sources = [f"say: {row['sentence']}" for row in ROWS]
    process = run_fork(BY_OPTIMUM, bundle / GENERATION, json.dumps(sources))
    assert process.returncode == 0, process.stderr
    ids, imported = process.stdout.strip().splitlines()[-2:]
    assert imported == "[]"
    batch = AutoTokenizer.from_pretrained(bundle / GENERATION)(
        sources, padding=True, return_tensors="pt", return_token_type_ids=False
    )
    baked = model.bake("echo").t5
    wanted = [baked.generate(**batch, num_beams=beams, max_new_tokens=9).tolist() for beams in (1, 3)]
    assert json.loads(ids) == wanted
    assert len({tuple(row) for row in wanted[0]}) > 1


def test_the_folder_is_in_optimums_layout_and_its_model_card_shows_how_to_load_it(model, bundle):
    files = {path.name for path in (bundle / GENERATION).iterdir()}
    config = model.backbone.t5.config
    merged = config.d_kv * config.num_heads == config.d_model
    decoders = {"decoder_model_merged.onnx"} if merged else {"decoder_model.onnx", "decoder_with_past_model.onnx"}
    assert {name for name in files if name.endswith(".onnx")} == {"encoder_model.onnx", *decoders}
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= files
    configuration = json.loads((bundle / GENERATION / "config.json").read_text())
    assert configuration["model_type"] == config.model_type
    assert configuration["hyperformer"] == {"task": "echo", "text": "say: {sentence}"}
    assert "_name_or_path" not in configuration
    code = (bundle / MODEL_CARD).read_text().split("```python\n")[2].partition("```")[0]
    process = run_fork(code, cwd=bundle)
    assert process.returncode == 0, process.stderr
    assert process.stdout.rstrip("\n").split("\n")[-1] == model.predict("echo", {"sentence": "…"}).label


def test_every_file_is_listed_and_the_runtime_names_the_library_that_loads_it(bundle):
    description = manifest.read(bundle)
    manifest.verify(bundle, description.files)
    assert all(name.startswith(f"{GENERATION}/") or name == MODEL_CARD for name in description.files)
    assert description.labels == []
    assert description.published  # a generative task is not compared with the majority baseline
    with pytest.raises(HyperFormerError, match=r"task 'echo' is generative\. Load .*generation with optimum's"):
        load(bundle)


def test_the_graphs_have_the_same_bytes_whatever_order_sets_have(bundle):
    """The names that optimum chooses for merged constants depend on the order of a set."""
    for path in (bundle / GENERATION).glob("*.onnx"):
        graph = onnx.load(path)
        names = [constant.name for constant in graph.graph.initializer]
        assert names == [f"constant_{number}" for number in range(len(names))]
        other = copy.deepcopy(graph)
        renamed = {name: f"onnx::MatMul_{len(names) - number}_merged_0" for number, name in enumerate(names)}
        for subgraph in graphs.iterate_graphs(other.graph):
            for node in subgraph.node:
                node.input[:] = [renamed.get(name, name) for name in node.input]
        for constant in other.graph.initializer:
            constant.name = renamed[constant.name]
        shuffled = sorted(other.graph.initializer, key=lambda constant: constant.name)
        del other.graph.initializer[:]
        other.graph.initializer.extend(shuffled)
        assert other.SerializeToString() != graph.SerializeToString()
        assert graphs.number_constants(other).SerializeToString() == graph.SerializeToString()
