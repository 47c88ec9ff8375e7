"""A BERT-like encoder with adapters and a head, and what else would answer with it, on the same weights."""

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
LABELS = {"mnli": 3, "short": 2}
Contender = Callable[[np.ndarray[Any, Any]], Any]


def _backbone(folder: Path) -> Any:
    from transformers import AutoTokenizer, BertModel

    from hyperformer.backbones.encoder import EncoderBackbone

    model = BertModel.from_pretrained(folder / "bert", add_pooling_layer=False).eval()
    return EncoderBackbone(model, AutoTokenizer.from_pretrained(folder / "bert"))


def make(folder: Path, sizes: str, among: str) -> None:
    """Writes the graphs of all contenders."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from hyperformer.backbones import Answers
    from hyperformer.export import graphs
    from hyperformer.export.classifier import filled, traced
    from hyperformer.export.quantize import write
    from hyperformer.manifest import GRAPH
    from hyperformer.types import AdapterWeights, HeadWeights

    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES[sizes]), add_pooling_layer=False).save_pretrained(folder / "bert")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[SEP]": 1}, unk_token="[PAD]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", sep_token="[SEP]")
    tokenizer.save_pretrained(folder / "bert")
    backbone = _backbone(folder)
    d, r, count = backbone.width, BOTTLENECK, LABELS[among]
    shapes = {"down": (r, d), "down_bias": (r,), "up": (d, r), "up_bias": (d,), "gain": (d,), "shift": (d,)}
    sites = backbone.sites()
    weights = {name: 0.05 * torch.randn(1, len(sites), *shape) for name, shape in shapes.items()}
    head = HeadWeights(torch.randn(1, count, d), torch.zeros(1, count))
    torch.save({**weights, "weight": head.weight, "bias": head.bias}, folder / "weights.pt")
    answers = Answers(tuple((place,) for place in range(count)))
    bare = backbone.baked(None, head).exportable(answers, "constrained")
    backbone.place(sites, "gelu_new")
    baked = backbone.baked(AdapterWeights(**weights), head)
    for name, module in {GRAPH: baked.exportable(answers, "constrained"), "bare.onnx": bare}.items():
        constants = dict(module.named_buffers(remove_duplicate=False))
        graphs.write(filled(traced(module.eval(), 18, ["scores", "probabilities"]), constants), folder / name)
    write(folder)
    _with_optimum(baked, head, folder)


def _with_optimum(baked: Any, head: Any, folder: Path) -> None:
    """The same baked weights as optimum exports a model for sequence classification."""
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
    model.bert.pooler = Mean()  # the rows that are timed have no padding
    model.classifier.weight.data, model.classifier.bias.data = head.weight[0], head.bias[0]
    with graphs.quiet():
        onnx_export_from_model(model, output=folder / "optimum", task="text-classification", do_validation=False)
    model.bert.pooler = None


def contenders(folder: Path, among: str, threads: int) -> dict[str, Contender]:
    """What answers token ids [B, L], by name."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSequenceClassification

    from hyperformer.backbones import Answers
    from hyperformer.manifest import GRAPH, INT8
    from hyperformer.types import AdapterWeights, HeadWeights

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def graph(name: str) -> Contender:
        session = onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        return lambda ids: session.run(["scores"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]

    given = torch.load(folder / "weights.pt", weights_only=True)
    head = HeadWeights(given.pop("weight"), given.pop("bias"))
    backbone = _backbone(folder)
    backbone.place(backbone.sites(), "gelu_new")
    baked = backbone.baked(AdapterWeights(**given), head)
    answers = Answers(tuple((place,) for place in range(LABELS[among])))
    exported = ORTModelForSequenceClassification.from_pretrained(folder / "optimum", session_options=options)

    def torch_eager(ids: np.ndarray[Any, Any]) -> Any:
        source = torch.from_numpy(ids)
        return baked.scores(source, torch.ones_like(source), answers, "constrained").numpy()

    def optimum(ids: np.ndarray[Any, Any]) -> Any:
        source = torch.from_numpy(ids)
        types = torch.zeros_like(source)
        return exported(input_ids=source, attention_mask=torch.ones_like(source), token_type_ids=types).logits

    found = {
        OURS: graph(GRAPH),
        "int8 graph": graph(INT8),
        "graph without adapters": graph("bare.onnx"),
        "torch eager": torch_eager,
        "optimum": optimum,
    }
    ids = np.random.default_rng(1).integers(1000, 2000, (3, 17))
    wanted = found["torch eager"](ids)
    np.testing.assert_allclose(found[OURS](ids), wanted, atol=1e-3)
    np.testing.assert_allclose(optimum(ids).log_softmax(-1).numpy(), wanted, atol=1e-3)
    return found
