"""A short case of the fuzzing: what altered files of a bundle come to."""

from __future__ import annotations

import random

import pytest
from fuzzing.bundle import ALTERED, Bundle


@pytest.mark.parametrize("which", range(len(ALTERED)), ids=ALTERED)
def test_altered_bytes_are_answered_or_refused_in_a_sentence(bundles, tmp_path, which):
    chance, bundle = random.Random(which), Bundle(bundles / "mood", tmp_path)
    said = [
        bundle.tried(bytes([which]) + chance.randbytes(4) + chance.randbytes(chance.randint(0, 40))) for _ in range(25)
    ]
    assert all(said)
    assert bundle.tried(bytes([which, 0, 0, 0, 0])) == "answered"  # nothing is altered
