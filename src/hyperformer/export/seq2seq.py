"""Baked generation tasks in optimum's layout: its plain `ORTModelForSeq2SeqLM.from_pretrained` loads the folder.

The decoder is one graph with and without a cache (merged) where optimum can run one: it takes a head's width to be
d_model / heads. Elsewhere it is two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from hyperformer import evaluation, text
from hyperformer.export import graphs, parity
from hyperformer.export.target import Target
from hyperformer.manifest import GENERATION, Manifest
from hyperformer.tasks import Task
from hyperformer.types import Answer, HyperFormerError

SEPARATE = ("decoder_model.onnx", "decoder_with_past_model.onnx")


class Seq2Seq(Target):
    """Encoder and decoder graphs, configuration and tokenizer."""

    def write(self, task: Task, folder: Path) -> None:
        from optimum.exporters.onnx import onnx_export_from_model

        baked, place = self.model.bake(task.name), folder / GENERATION
        model: Any
        model, merged = baked.generator()
        place.mkdir()
        model.generation_config.max_new_tokens = self.model.backbone_settings.max_target_tokens
        model.generation_config.num_beams = self.evaluation.num_beams
        with graphs.quiet():
            onnx_export_from_model(
                model,
                output=place,
                task="text2text-generation-with-past",
                opset=self.settings.opset,
                no_post_process=not merged,
                do_validation=False,  # `check` runs whole generations
            )
        for name in SEPARATE if merged else ():
            (place / name).unlink()
        baked.tokenizer.save_pretrained(place)
        ours = {"task": task.name, "text": baked.template(task.settings.text)}
        _without_path(place / "config.json", {"hyperformer": ours})
        for path in sorted(place.glob("*.onnx")):
            onnx.save_model(graphs.numbered(graphs.plain(onnx.load(path))), path)

    def check(
        self, task: Task, folder: Path, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], made: Manifest
    ) -> dict[str, dict[str, float]]:
        sources = [text.joined(self.model.source(task.name, row)) for row in rows]
        expected = self.model.generate(task.name, sources, self.evaluation)
        found = self._generated(folder / GENERATION, sources)
        for source, ours, theirs in zip(sources, found, expected, strict=True):
            if ours != theirs:
                raise HyperFormerError(
                    f"the graphs of task {task.name!r} write {ours!r} after {source!r} where torch writes {theirs!r}; "
                    "they are not published"
                )
        own = evaluation.metrics(task, rows, [Answer(words, {}) for words in found])["mean"]
        same = {"rows": len(sources), "ties": 0, "largest_difference": 0.0}
        parity.same_metric(task.name, own, metrics["mean"], same)
        return {"parity": same}

    def _generated(self, folder: Path, sources: Sequence[str]) -> list[str]:
        """What plain optimum writes after each source."""
        from optimum.onnxruntime import ORTModelForSeq2SeqLM
        from transformers import AutoTokenizer

        with graphs.quiet():
            model = ORTModelForSeq2SeqLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        longest = self.model.backbone_settings.max_source_tokens
        written: list[str] = []
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
            written += [words.strip() for words in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return written


def _without_path(path: Path, more: Mapping[str, Any]) -> None:
    """The configuration without the folder that it was read from, and with what is ours under one key."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps({**config, **more}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
