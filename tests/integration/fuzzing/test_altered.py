"""A short deterministic run of the fuzzing of bundles."""

from __future__ import annotations

import random

import pytest
from fuzz_bundle import ALTERED, Bundle

from hyperformer.core.manifest import GRAPH


@pytest.mark.parametrize("index", range(len(ALTERED)), ids=ALTERED)
def test_altered_bytes_are_answered_or_refused_with_an_error(bundles, tmp_path, index, capfd):
    rng, bundle = random.Random(index), Bundle(bundles / "mood", tmp_path)
    outcomes = [
        bundle.load_altered(bytes([index]) + rng.randbytes(4) + rng.randbytes(rng.randint(0, 40))) for _ in range(25)
    ]
    assert all(outcomes)
    assert capfd.readouterr().out == ""
    assert bundle.load_altered(bytes([index, 0, 0, 0, 0])) == "answered"  # nothing is altered


def test_a_graph_with_a_name_that_is_not_utf_8_is_refused_without_output(bundles, tmp_path, capfd):
    bundle = Bundle(bundles / "mood", tmp_path)
    start = (bundle.original / GRAPH).read_bytes().index(b"input_ids")
    error = bundle.load_altered(bytes([ALTERED.index(GRAPH), *start.to_bytes(4, "little"), 0xFF, 0xFE]))
    assert "cannot be opened" in error
    assert capfd.readouterr().out == ""
