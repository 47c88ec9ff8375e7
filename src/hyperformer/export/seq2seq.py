"""Export generative tasks in optimum's layout, for `ORTModelForSeq2SeqLM.from_pretrained`.

optimum can run a merged decoder (one graph that works with and without a key-value cache) only if each attention head
has d_model / num_heads dimensions. Otherwise two decoder graphs are exported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from hyperformer import evaluation
from hyperformer.backbones import GenerativeBackbone
from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import GENERATION, Manifest
from hyperformer.core.types import Answer
from hyperformer.export import graphs, parity
from hyperformer.export.target import Target
from hyperformer.tasks import Task

SEPARATE = ("decoder_model.onnx", "decoder_with_past_model.onnx")
"""The decoder graphs that a merged decoder replaces."""


class Seq2Seq(Target):
    """Export target that writes the encoder and decoder graphs, configuration and tokenizer of each generative task."""

    def write(self, task: Task, folder: Path) -> None:
        """Write the graphs, configuration and tokenizer of a task."""
        from optimum.exporters.onnx import onnx_export_from_model

        trained = self.models[task.name]
        baked, output = trained.bake(task.name), folder / GENERATION
        model: Any
        assert isinstance(baked, GenerativeBackbone)  # the only kind that a model accepts for a generative task
        model, merged = baked.get_seq2seq_model()
        output.mkdir()
        model.generation_config.max_new_tokens = trained.backbone_settings.max_target_tokens
        model.generation_config.num_beams = self.evaluation.num_beams
        with graphs.silence_output():
            onnx_export_from_model(
                model,
                output=output,
                task="text2text-generation-with-past",
                opset=self.settings.opset,
                no_post_process=not merged,
                do_validation=False,  # `check` compares generated texts
            )
        for name in SEPARATE if merged else ():
            (output / name).unlink()
        baked.tokenizer.save_pretrained(output)
        description = {"task": task.name, "text": baked.format_template(task.settings.text)}
        _update_configuration(output / "config.json", {"hyperformer": description})
        for path in sorted(output.glob("*.onnx")):
            onnx.save_model(graphs.number_constants(graphs.strip_metadata(onnx.load(path))), path)

    def check(
        self,
        task: Task,
        folder: Path,
        rows: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, float],
        description: Manifest,
    ) -> dict[str, dict[str, float]]:
        """Compare the generated texts and their metric with PyTorch; see `Target.check`."""
        model = self.models[task.name]
        sources = [text.join_source(model.source(task.name, row)) for row in rows]
        expected = model.generate(task.name, sources, self.evaluation)
        generated = self._generate(folder / GENERATION, sources)
        for source, got, wanted in zip(sources, generated, expected, strict=True):
            if got != wanted:
                raise HyperFormerError(
                    f"the graphs of task {task.name!r} generate {got!r} from {source!r}; expected {wanted!r} as with "
                    "PyTorch. The graphs are not published. Use the checkpoint with PyTorch."
                )
        metric = evaluation.compute_metrics(task, rows, [Answer(answer, {}) for answer in generated])["mean"]
        differences = {"rows": len(sources), "ties": 0, "largest_difference": 0.0}
        parity.check_metric(task.name, metric, metrics["mean"], differences)
        return {"parity": differences}

    def _generate(self, folder: Path, sources: Sequence[str]) -> list[str]:
        """Generate a text from each source with optimum and transformers only."""
        from optimum.onnxruntime import ORTModelForSeq2SeqLM
        from transformers import AutoTokenizer

        with graphs.silence_output():
            model = ORTModelForSeq2SeqLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        longest = self.models.first.backbone_settings.max_source_tokens
        texts: list[str] = []
        for start in range(0, len(sources), self.evaluation.batch_size):
            batch = tokenizer(
                list(sources[start : start + self.evaluation.batch_size]),
                truncation=True,
                max_length=longest,
                padding=True,
                return_tensors="pt",
                return_token_type_ids=False,
            )
            ids = model.generate(**batch)
            texts += [answer.strip() for answer in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return texts


def _update_configuration(path: Path, fields: Mapping[str, Any]) -> None:
    """Remove the path of the original model from a configuration file, and add fields."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps({**config, **fields}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
