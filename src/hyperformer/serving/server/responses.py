"""Encode responses of the Open Inference Protocol, version 2."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperformer.core.manifest import Manifest
from hyperformer.core.types import Answer
from hyperformer.serving.server.messages import (
    BINARY_DATA,
    BINARY_SIZE,
    VERSION,
    Datatype,
    InferRequest,
    InferResponse,
    OutputTensor,
)
from hyperformer.serving.server.requests import read_flag

Output = tuple[Datatype, NDArray[Any] | list[str]]


def collect_outputs(answers: Sequence[Answer], manifest: Manifest) -> dict[str, Output]:
    """Return the datatype and values of each output."""
    probabilities = [[answer.probabilities[label] for label in manifest.labels] for answer in answers]
    outputs: dict[str, Output] = {
        "label": ("BYTES", [answer.label for answer in answers]),
        "probabilities": ("FP32", np.array(probabilities, dtype=np.float32)),
        "truncated": ("BOOL", np.array([answer.truncated for answer in answers])),
    }
    if manifest.numbers:
        outputs["value"] = ("FP64", np.array([answer.value for answer in answers], dtype=np.float64))
    return outputs


def encode_response(
    name: str, request: InferRequest, answers: Sequence[Answer], manifest: Manifest
) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON if binary tensors follow, else None."""
    outputs = collect_outputs(answers, manifest)
    binary = read_flag(request.parameters, "binary_data_output")
    requested = {output.name: read_flag(output.parameters, BINARY_DATA, binary) for output in request.outputs or []}
    tensors, buffers = [], []
    for output, as_binary in (requested or dict.fromkeys(outputs, binary)).items():
        datatype, values = outputs[output]
        shape = [len(values)] if isinstance(values, list) else list(values.shape)
        if as_binary:
            data = _encode_values(values)
            buffers.append(data)
            tensors.append(
                OutputTensor(name=output, shape=shape, datatype=datatype, parameters={BINARY_SIZE: len(data)})
            )
        else:
            items = values if isinstance(values, list) else values.ravel().tolist()
            tensors.append(OutputTensor(name=output, shape=shape, datatype=datatype, data=items))
    response = InferResponse(model_name=name, model_version=VERSION, id=request.id, outputs=tensors)
    body = response.model_dump_json(exclude_none=True).encode()
    return b"".join([body, *buffers]), len(body) if buffers else None


def _encode_values(values: NDArray[Any] | list[str]) -> bytes:
    if isinstance(values, list):
        encoded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    return values.tobytes()
