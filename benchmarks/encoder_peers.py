"""Scorers of a BERT-like encoder with adapters and a head: our graphs and other implementations.

All scorers use the same weights; `graph without adapters` omits the adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OURS = "classifier graph"
SIZES: dict[str, dict[str, Any]] = {
    "minilm": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
}
BOTTLENECK = 24
"""The adapters' bottleneck dimension."""
LABELS = {"mnli": 3, "short": 2}
"""Number of labels, by the name of the answer set."""
Scorer = Callable[[np.ndarray[Any, Any]], Any]


def _backbone(folder: Path) -> Any:
    from transformers import AutoTokenizer, BertModel

    from hyperformer.backbones.encoder import EncoderBackbone

    model = BertModel.from_pretrained(folder / "bert", add_pooling_layer=False).eval()
    return EncoderBackbone(model, AutoTokenizer.from_pretrained(folder / "bert"))


def make_tokenizer() -> Any:
    """Return a tokenizer with the token types of BERT, without words."""
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[SEP]": 1, "[CLS]": 2}, unk_token="[PAD]"))
    backend.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", sep_token="[SEP]", cls_token="[CLS]")


def write_models(folder: Path, sizes: str, answers: str) -> None:
    """Write the weights and graphs of all scorers.

    Args:
        folder: The folder to write them to.
        sizes: A name in `SIZES`.
        answers: A name in `LABELS`.
    """
    import torch
    from transformers import BertConfig, BertModel

    from hyperformer.backbones import Answers
    from hyperformer.core.manifest import GRAPH
    from hyperformer.core.types import AdapterWeights, HeadWeights
    from hyperformer.export import graphs
    from hyperformer.export.classifier import fill_constants, trace_graph
    from hyperformer.export.quantize import write

    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES[sizes]), add_pooling_layer=False).save_pretrained(folder / "bert")
    make_tokenizer().save_pretrained(folder / "bert")
    backbone = _backbone(folder)
    d, r, count = backbone.width, BOTTLENECK, LABELS[answers]
    shapes = {"down": (r, d), "down_bias": (r,), "up": (d, r), "up_bias": (d,), "gain": (d,), "shift": (d,)}
    sites = backbone.sites()
    weights = {name: 0.05 * torch.randn(1, len(sites), *shape) for name, shape in shapes.items()}
    head = HeadWeights(torch.randn(1, count, d), torch.zeros(1, count))
    torch.save({**weights, "weight": head.weight, "bias": head.bias}, folder / "weights.pt")
    labels = Answers(tuple((label,) for label in range(count)))
    bare = backbone.bake(None, head).build_export_module(labels, "constrained")
    backbone.insert_adapters(sites, "gelu_new")
    baked = backbone.bake(AdapterWeights(**weights), head)
    for name, module in {GRAPH: baked.build_export_module(labels, "constrained"), "bare.onnx": bare}.items():
        constants = dict(module.named_buffers(remove_duplicate=False))
        graphs.write(
            fill_constants(trace_graph(module.eval(), 18, ["scores", "probabilities"]), constants), folder / name
        )
    write(folder)
    _export_with_optimum(baked, head, folder)


def _export_with_optimum(baked: Any, head: Any, folder: Path) -> None:
    """Export the baked encoder and its head with optimum, as a sequence classification model."""
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import BertForSequenceClassification

    from hyperformer.export import graphs

    class Mean(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden.mean(1)

    config = baked.encoder.config
    config.num_labels = head.weight.shape[1]
    model = BertForSequenceClassification(config).eval()
    model.bert = baked.encoder
    model.bert.pooler = Mean()  # the timed rows have no padding
    model.classifier.weight.data, model.classifier.bias.data = head.weight[0], head.bias[0]
    with graphs.silence_output():
        onnx_export_from_model(model, output=folder / "optimum", task="text-classification", do_validation=False)
    model.bert.pooler = None


def load_scorers(folder: Path, answers: str, threads: int) -> dict[str, Scorer]:
    """Return the scorers by name: functions that map token ids [B, L] to scores.

    Args:
        folder: The folder that `write_models` wrote.
        answers: A name in `LABELS`.
        threads: Number of threads of each scorer.

    Raises:
        AssertionError: the scores of our graph or of optimum differ from those of `torch eager`.
    """
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSequenceClassification

    from hyperformer.backbones import Answers
    from hyperformer.core.manifest import GRAPH, INT8
    from hyperformer.core.types import AdapterWeights, HeadWeights

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def graph(name: str) -> Scorer:
        session = onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        return lambda ids: session.run(["scores"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]

    weights = torch.load(folder / "weights.pt", weights_only=True)
    head = HeadWeights(weights.pop("weight"), weights.pop("bias"))
    backbone = _backbone(folder)
    backbone.insert_adapters(backbone.sites(), "gelu_new")
    baked = backbone.bake(AdapterWeights(**weights), head)
    labels = Answers(tuple((label,) for label in range(LABELS[answers])))
    exported = ORTModelForSequenceClassification.from_pretrained(folder / "optimum", session_options=options)

    def torch_eager(ids: np.ndarray[Any, Any]) -> Any:
        source = torch.from_numpy(ids)
        return baked.scores(source, torch.ones_like(source), labels, "constrained").numpy()

    def optimum(ids: np.ndarray[Any, Any]) -> Any:
        source = torch.from_numpy(ids)
        types = torch.zeros_like(source)
        return exported(input_ids=source, attention_mask=torch.ones_like(source), token_type_ids=types).logits

    scorers = {
        OURS: graph(GRAPH),
        "int8 graph": graph(INT8),
        "graph without adapters": graph("bare.onnx"),
        "torch eager": torch_eager,
        "optimum": optimum,
    }
    ids = np.random.default_rng(1).integers(1000, 2000, (3, 17))
    expected = scorers["torch eager"](ids)
    np.testing.assert_allclose(scorers[OURS](ids), expected, atol=1e-3)
    np.testing.assert_allclose(optimum(ids).log_softmax(-1).numpy(), expected, atol=1e-3)
    return scorers
