"""Span corruption."""

from __future__ import annotations

import pytest

from hyperformer.core.rng import make_rng
from hyperformer.settings import PretrainingSettings
from hyperformer.training.pretraining import corrupt


def pretraining_settings(**changes) -> PretrainingSettings:
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4}
    defaults = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "precision": "fp32",
        "rows": 8,
        "vocab_size": 240,
        "sizes": sizes,
        "max_tokens": 32,
    }
    return PretrainingSettings(**{**defaults, **changes})


def reassemble(source: list[int], target: list[int], sentinels: list[int]) -> list[int]:
    """Replace each sentinel of a source by the tokens that follow it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            assert token not in spans
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    text: list[int] = []
    for token in source:
        text += spans.pop(token) if token in sentinels else [token]
    assert not spans
    return text


def test_source_and_target_of_a_corrupted_text_reassemble_to_it():
    sentinels = list(range(900, 932))
    settings = pretraining_settings(noise_density=0.3, mean_noise_span_length=2.0)
    for length in range(2, 60):
        ids = list(range(100, 100 + length))
        source, target = corrupt(ids, sentinels, settings, make_rng(0, length))
        assert reassemble(source, target, sentinels) == ids
        used = [token for token in source if token in sentinels]
        assert used == sentinels[: len(used)] == [token for token in target if token in sentinels]
        assert len(used) < len(source), "something is left to read"


@pytest.mark.parametrize(("density", "mean_noise_span_length"), [(0.15, 3.0), (0.5, 5.0), (0.3, 1.0)])
def test_corruption_hides_about_the_requested_share_in_spans_of_about_the_requested_length(
    density, mean_noise_span_length
):
    sentinels = list(range(900, 932))
    settings = pretraining_settings(noise_density=density, mean_noise_span_length=mean_noise_span_length)
    hidden = spans = total = 0
    for number in range(100):
        ids = list(range(60))
        source, _ = corrupt(ids, sentinels, settings, make_rng(0, number))
        marks = sum(token in sentinels for token in source)
        hidden += len(ids) - (len(source) - marks)
        spans += marks
        total += len(ids)
    assert hidden / total == pytest.approx(density, rel=0.05)
    assert hidden / spans == pytest.approx(mean_noise_span_length, rel=0.15)


def test_corruption_hides_other_spans_each_time():
    sources = {tuple(corrupt(range(40), [900, 901, 902], pretraining_settings(), make_rng(0, n))[0]) for n in range(20)}
    assert len(sources) > 15


def test_corruption_stays_within_the_sentinels():
    source, target = corrupt(
        range(60), [900, 901], pretraining_settings(noise_density=0.5, mean_noise_span_length=1.0), make_rng(0)
    )
    assert [token for token in source if token >= 900] == [900, 901]
    assert reassemble(source, target, [900, 901]) == list(range(60))
