"""Random generators that depend only on a seed and on the names of their use."""

from __future__ import annotations

import zlib

import numpy as np


def make_rng(seed: int, *stream: int | str) -> np.random.Generator:
    """Return a random generator that depends only on `seed` and on the numbers and names in `stream`."""
    keys = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *keys])))
