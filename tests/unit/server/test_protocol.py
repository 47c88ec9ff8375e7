"""Requests as they are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hyperformer.server.protocol import InferRequest


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [%s]}]}',
        '{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [[%s]]}]}',
        '{"inputs": [%s]}',
        '{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": ["b"]}], "outputs": [%s]}',
    ],
)
def test_of_a_thousand_faults_a_few_are_looked_at(body):
    """Each would cost memory and time of the whole server."""
    with pytest.raises(ValidationError) as refused:
        InferRequest.model_validate_json(body % ", ".join(["1"] * 1000))
    assert refused.value.error_count() <= 3
