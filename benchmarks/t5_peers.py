"""Scorers of a T5 with adapters: our graphs and other implementations.

optimum, CTranslate2 and `graph without adapters` run the T5 without adapters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OURS = "classifier graph"
SIZES: dict[str, dict[str, Any]] = {
    "t5-small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128},
    "default": {
        "d_model": 256,
        "d_kv": 32,
        "d_ff": 512,
        "num_layers": 4,
        "num_decoder_layers": 2,
        "num_heads": 8,
        "vocab_size": 1900,
    },
}
BOTTLENECK = {"t5-small": 16, "default": 32}
"""The adapters' bottleneck dimension."""
AnswerTokens = tuple[tuple[int, ...], ...]
ANSWERS: dict[str, AnswerTokens] = {"mnli": ((3, 35, 1756, 297, 1), (1163, 1), (1252, 1)), "short": ((50, 1), (60, 1))}
Scorer = Callable[[np.ndarray[Any, Any]], Any]


def write_models(folder: Path, sizes: str, answers: str) -> None:
    """Write the weights, graphs and model folders of all scorers.

    Args:
        folder: The folder to write them to.
        sizes: A name in `SIZES`.
        answers: A name in `ANSWERS`.
    """
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import T5Config, T5ForConditionalGeneration

    from hyperformer.backbones import Answers, t5, t5_tokenizers
    from hyperformer.core.types import AdapterWeights
    from hyperformer.export import graphs
    from hyperformer.export.classifier import fill_constants, trace_graph

    tokens = ANSWERS[answers]
    word_list = [f"w{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    tokenizer = t5_tokenizers.train_tokenizer([" ".join(word_list)] * 3, 300)
    torch.manual_seed(0)
    config = T5Config(**SIZES[sizes], decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    plain = T5ForConditionalGeneration(config).eval()
    plain.save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    backbone = t5.T5Backbone(plain, tokenizer)
    bare = backbone.build_export_module(Answers(tokens), "constrained")
    d, r, sites = config.d_model, BOTTLENECK[sizes], backbone.sites()
    shapes = {"down": (r, d), "down_bias": (r,), "up": (d, r), "up_bias": (d,), "gain": (d,), "shift": (d,)}
    weights = AdapterWeights(**{name: 0.05 * torch.randn(1, len(sites), *shape) for name, shape in shapes.items()})
    torch.save(vars(weights), folder / "weights.pt")
    backbone.insert_adapters(sites, "gelu_new")
    baked = backbone.bake(weights)
    for name, module in {
        "classifier": baked.build_export_module(Answers(tokens), "constrained"),
        "likelihood": baked.build_export_module(Answers(tokens), "likelihood"),
        "bare": bare,
    }.items():
        graph = fill_constants(
            trace_graph(module, 18, ["scores", "probabilities"]), dict(module.named_buffers(remove_duplicate=False))
        )
        graphs.write(graph, folder / f"{name}.onnx")
    with graphs.silence_output():
        quantize_dynamic(
            folder / "classifier.onnx",
            folder / "int8.onnx",
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
        )
        onnx_export_from_model(
            T5ForConditionalGeneration.from_pretrained(folder / "t5"),
            output=folder / "optimum",
            task="text2text-generation-with-past",
            do_validation=False,
        )
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError:
        return
    with graphs.silence_output():
        TransformersConverter(str(folder / "t5")).convert(str(folder / "ctranslate2"))


def load_scorers(folder: Path, answers: str, threads: int) -> dict[str, Scorer]:
    """Return the scorers by name: functions that map token ids [B, L] to scores or generated answers.

    Args:
        folder: The folder that `write_models` wrote.
        answers: A name in `ANSWERS`.
        threads: Number of threads of each scorer.
    """
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    from hyperformer.backbones import t5
    from hyperformer.core.types import AdapterWeights

    answer_tokens = ANSWERS[answers]
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def graph(name: str) -> Callable[[np.ndarray[Any, Any]], Any]:
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        return lambda ids: session.run(["scores"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})

    backbone = t5.T5Backbone(
        T5ForConditionalGeneration.from_pretrained(folder / "t5").eval(), AutoTokenizer.from_pretrained(folder / "t5")
    )
    backbone.insert_adapters(backbone.sites(), "gelu_new")
    baked = backbone.bake(AdapterWeights(**torch.load(folder / "weights.pt", weights_only=True))).t5
    exported = ORTModelForSeq2SeqLM.from_pretrained(folder / "optimum", session_options=options)
    longest = max(map(len, answer_tokens))
    labels = torch.tensor([[*answer, *[-100] * (longest - len(answer))] for answer in answer_tokens])  # [A, T]
    generation = {"max_new_tokens": longest, "min_new_tokens": longest, "do_sample": False, "num_beams": 1}

    def torch_generate(ids: np.ndarray[Any, Any]) -> Any:
        source = torch.from_numpy(ids)
        return baked.generate(input_ids=source, attention_mask=torch.ones_like(source), **generation)

    def torch_scores(ids: np.ndarray[Any, Any]) -> Any:
        """Score each answer with teacher forcing; each source is encoded once."""
        source = torch.from_numpy(ids)
        encoded = baked.encoder(input_ids=source).last_hidden_state.repeat_interleave(len(labels), 0)
        targets = labels.repeat(len(ids), 1)  # [B * A, T]
        logits = baked(encoder_outputs=(encoded,), labels=targets).logits
        return (logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (targets >= 0)).sum(
            1
        )

    def optimum_generate(ids: np.ndarray[Any, Any]) -> Any:
        source = torch.from_numpy(ids)
        return exported.generate(input_ids=source, attention_mask=torch.ones_like(source), **generation)

    scorers: dict[str, Scorer] = {
        OURS: graph("classifier"),
        "likelihood graph": graph("likelihood"),
        "int8 graph": graph("int8"),
        "graph without adapters": graph("bare"),
        "torch generate": torch_generate,
        "torch scoring": torch_scores,
        "optimum generate": optimum_generate,
    }
    if (folder / "ctranslate2").is_dir():
        scorers["CTranslate2 scoring"] = ctranslate2_scorer(folder / "ctranslate2", answer_tokens, threads)
    return scorers


def ctranslate2_scorer(folder: Path, answers: AnswerTokens, threads: int) -> Callable[[np.ndarray[Any, Any]], Any]:
    """Return a function that scores each answer for each source with CTranslate2."""
    import ctranslate2

    translator = ctranslate2.Translator(str(folder), intra_threads=threads, inter_threads=1)
    vocabulary = json.loads((folder / "shared_vocabulary.json").read_text())
    targets = [[vocabulary[i] for i in answer[:-1]] for answer in answers]

    def scores(ids: np.ndarray[Any, Any]) -> Any:
        sources = [[vocabulary[i] for i in row] for row in ids for _ in answers]
        return translator.score_batch(sources, targets * len(ids))

    return scores
