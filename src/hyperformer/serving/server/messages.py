"""The messages of the Open Inference Protocol, version 2: requests, responses and the metadata of a task.

A task has one BYTES input for each column of its text, of shape [rows] or [rows, 1], and the outputs `label` and
`truncated` [rows], `probabilities` [rows, labels], and for regression `value` [rows]. Tensors are in the JSON or,
with the binary tensor data extension, after it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from hyperformer.core import text
from hyperformer.core.errors import HyperFormerError
from hyperformer.core.manifest import Manifest

LENGTH_HEADER = "Inference-Header-Content-Length"
Datatype = Literal["BYTES", "FP32", "FP64", "BOOL"]
BINARY_DATA = "binary_data"
BINARY_SIZE = "binary_data_size"
MAX_TENSORS = 64  # maximum number of inputs, or of outputs, of a request


class BadRequestError(HyperFormerError):
    """A request that is invalid, or does not match the task."""


class RequestTooLargeError(HyperFormerError):
    """A request that exceeds a limit, such as that of its body, its texts or its rows."""


T = TypeVar("T")
FailFast = Annotated[list[T], Field(fail_fast=True)]
"""A list that is validated up to its first error, so that many errors cost no more than one."""


class _RequestModel(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class InputTensor(_RequestModel):
    """An input: a column of the task's text, with one text for each row."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=2)]
    datatype: Literal["BYTES"]
    data: Annotated[FailFast[str] | FailFast[FailFast[str]] | None, Field(description="[rows] or [rows][1]")] = None
    parameters: dict[str, Any] | None = None


class RequestedOutput(_RequestModel):
    """An output that the response includes."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(_RequestModel):
    """A request to predict the answers of rows."""

    id: str | None = None
    inputs: Annotated[FailFast[InputTensor], Field(min_length=1, max_length=MAX_TENSORS)]
    outputs: Annotated[FailFast[RequestedOutput], Field(max_length=MAX_TENSORS)] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(BaseModel):
    """An output for all rows. A binary output has no `data`; its values follow the JSON."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferResponse(BaseModel):
    """The outputs of a task for all rows of a request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    """An input or output of a task; in `shape`, -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Inputs, outputs and parameters of a task.

    `parameters["labels"]` lists the labels in the order of the output `probabilities`.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


VERSION = "1"
PLATFORM = "hyperformer_onnxruntime"


def describe_task(name: str, manifest: Manifest) -> ModelMetadata:
    """Return the metadata of a task."""
    outputs = [
        ("label", "BYTES", [-1]),
        ("probabilities", "FP32", [-1, len(manifest.labels)]),
        ("truncated", "BOOL", [-1]),
        *([("value", "FP64", [-1])] if manifest.numbers else []),
    ]
    return ModelMetadata(
        name=name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[
            TensorMetadata(name=column, datatype="BYTES", shape=[-1]) for column in text.find_columns(manifest.text)
        ],
        outputs=[TensorMetadata(name=output, datatype=kind, shape=shape) for output, kind, shape in outputs],
        parameters={
            "kind": manifest.kind,
            "labels": manifest.labels,
            "missing": manifest.missing,
            "max_source_tokens": manifest.max_source_tokens,
            "method": manifest.method,
            "backbone": manifest.backbone,
            "example": manifest.example,
        },
    )
