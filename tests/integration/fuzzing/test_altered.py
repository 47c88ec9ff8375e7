"""A short case of the fuzzing: what altered files of a bundle come to."""

from __future__ import annotations

import random

import pytest
from fuzz_bundle import ALTERED, Bundle

from hyperformer.manifest import GRAPH


@pytest.mark.parametrize("which", range(len(ALTERED)), ids=ALTERED)
def test_altered_bytes_are_answered_or_refused_in_a_sentence(bundles, tmp_path, which, capfd):
    chance, bundle = random.Random(which), Bundle(bundles / "mood", tmp_path)
    said = [
        bundle.tried(bytes([which]) + chance.randbytes(4) + chance.randbytes(chance.randint(0, 40))) for _ in range(25)
    ]
    assert all(said)
    assert capfd.readouterr().out == ""
    assert bundle.tried(bytes([which, 0, 0, 0, 0])) == "answered"  # nothing is altered


def test_a_graph_with_a_name_that_is_no_text_is_refused_without_a_print(bundles, tmp_path, capfd):
    bundle = Bundle(bundles / "mood", tmp_path)
    name = (bundle.whole / GRAPH).read_bytes().index(b"input_ids")
    said = bundle.tried(bytes([ALTERED.index(GRAPH), *name.to_bytes(4, "little"), 0xFF, 0xFE]))
    assert "cannot be opened" in said
    assert capfd.readouterr().out == ""
