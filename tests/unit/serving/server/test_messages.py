"""Validation of requests."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hyperformer.serving.server.messages import InferRequest


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [%s]}]}',
        '{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [[%s]]}]}',
        '{"inputs": [%s]}',
        '{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": ["b"]}], "outputs": [%s]}',
    ],
)
def test_validation_stops_after_a_few_of_a_thousand_errors(body):
    """Each error would cost memory and time of the whole server."""
    with pytest.raises(ValidationError) as refused:
        InferRequest.model_validate_json(body % ", ".join(["1"] * 1000))
    assert refused.value.error_count() <= 3
