from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from hyperformer.core.values import MAX_INTEGER, to_text


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_numbers_are_written_as_javascript_writes_them() -> None:
    rng = np.random.default_rng(0)
    numbers = [*(10.0 ** rng.uniform(-320, 15.9, 2000)), *rng.integers(-MAX_INTEGER, MAX_INTEGER, 100).tolist()]
    numbers += [round(number, 3) for number in rng.normal(scale=1000, size=200)]
    script = "console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0)).map(String)))"
    output = subprocess.run(
        ["node", "-e", script], input=json.dumps(numbers), capture_output=True, text=True, check=True
    )
    assert [to_text(number, "a") for number in numbers] == json.loads(output.stdout)
