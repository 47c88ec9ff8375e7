"""The Open Inference Protocol, version 2: what a request says, and how answers are said.

A task takes one BYTES tensor for each column of its text, of shape [rows] or [rows, 1], and gives `label` and
`truncated` [rows], `probabilities` [rows, labels], and `value` [rows] where answers are numbers. Tensors may be in the
JSON or, by the binary extension, behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hyperformer import text
from hyperformer.manifest import Manifest
from hyperformer.types import Answer, HyperFormerError

HEADER = "Inference-Header-Content-Length"
Datatype = Literal["BYTES", "FP32", "FP64", "BOOL"]
DIGITS = 12  # of a length that could be
BINARY, SIZE = "binary_data", "binary_data_size"
MOST_TENSORS = 64  # inputs, or outputs, of a request
SPARE_STRINGS = 1024  # strings of a request beside its texts: names, and values of parameters
SPARE_BYTES = 64 << 10  # bytes of a request's JSON outside of strings, beside those around its texts
TEXT_SPARE_BYTES = 64  # bytes around a text: a comma, brackets and indentation


class BadRequest(HyperFormerError):
    """A request that cannot be understood, or does not fit the task."""


class TooLarge(HyperFormerError):
    """A body, or a number of rows, beyond the limit."""


T = TypeVar("T")
Quick = Annotated[list[T], Field(fail_fast=True)]
"""Checked up to the first fault: a body of a million faults is as cheap as one of one."""


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class InputTensor(_Said):
    """A column of the rows."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=2)]
    datatype: Literal["BYTES"]
    data: Annotated[Quick[str] | Quick[Quick[str]] | None, Field(description="[rows] or [rows][1]")] = None
    parameters: dict[str, Any] | None = None


class OutputWanted(_Said):
    """One of the outputs to be given."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(_Said):
    """Rows to be answered."""

    id: str | None = None
    inputs: Annotated[Quick[InputTensor], Field(min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[Quick[OutputWanted], Field(max_length=MOST_TENSORS)] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(BaseModel):
    """An output of all rows; its data may follow the JSON instead."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferResponse(BaseModel):
    """The answers to rows."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    """A tensor that a task takes or gives; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A task: what it takes and gives, and its labels in the order of their probabilities."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


VERSION = "1"
PLATFORM = "hyperformer_onnxruntime"


def metadata(name: str, described: Manifest) -> ModelMetadata:
    """What the protocol says of a task."""
    outputs = [
        ("label", "BYTES", [-1]),
        ("probabilities", "FP32", [-1, len(described.labels)]),
        ("truncated", "BOOL", [-1]),
        *([("value", "FP64", [-1])] if described.numbers else []),
    ]
    return ModelMetadata(
        name=name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[
            TensorMetadata(name=one, datatype="BYTES", shape=[-1])
            for one in dict.fromkeys(text.columns(described.text))
        ],
        outputs=[TensorMetadata(name=one, datatype=kind, shape=shape) for one, kind, shape in outputs],
        parameters={
            "kind": described.kind,
            "labels": described.labels,
            "max_source_tokens": described.max_source_tokens,
            "method": described.method,
            "backbone": described.backbone,
        },
    )


def parse(body: bytes, json_length: str | None, most_texts: int) -> tuple[InferRequest, bytes]:
    """Parse a request, and return it with the tensors behind its JSON.

    Args:
        body: the request's body.
        json_length: the value of its header `Inference-Header-Content-Length`.
        most_texts: texts that a request of this task may hold.
    Raises:
        BadRequest: the body is no request.
        TooLarge: its JSON holds more than a request can.
    """
    length = len(body)
    if json_length is not None:
        if not json_length.isdecimal() or len(json_length) > DIGITS or int(json_length) > len(body):
            raise BadRequest(
                f"the header {HEADER} is {json_length[:20]!r}, expected the bytes of JSON among the body's {len(body)}"
            )
        length = int(json_length)
    check_structure(body[:length], most_texts)
    try:
        return InferRequest.model_validate_json(body[:length]), body[length:]
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the body"
        raise BadRequest(f"{where}: {fault['msg']}; send a request of the Open Inference Protocol, version 2") from None


def check_structure(body: bytes, most_texts: int) -> None:
    """Refuse a JSON of more strings or more structure than a request can have, without parsing it.

    A parser holds the interpreter while it makes an object of each; searching bytes costs a thousandth of that.

    Raises:
        TooLarge: there is more.
    """
    if b"\\" in body:  # without escapes every quote begins or ends a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings, most = body.count(b'"') // 2, most_texts + SPARE_STRINGS
    if strings > most:
        raise TooLarge(f"the JSON holds {strings} strings; expected at most {most}. Send several requests.")
    outside, most = sum(map(len, body.split(b'"')[::2])), TEXT_SPARE_BYTES * most_texts + SPARE_BYTES
    if outside > most:
        raise TooLarge(
            f"the JSON has {outside} bytes outside of strings; expected at most {most}. Remove what is no text."
        )


def rows_of(request: InferRequest, tensors: bytes, columns: Sequence[str], most: int) -> list[dict[str, str]]:
    """Return the rows of a request, by column.

    Args:
        request: its inputs may hold their texts, or the size of their texts among the tensors.
        tensors: the bytes behind the request's JSON.
        columns: the inputs of the task.
        most: rows of a request.
    Raises:
        BadRequest: tensors do not fit the task's columns, each other, or their own shapes.
        TooLarge: there are more rows.
    """
    found: dict[str, list[str]] = {}
    for tensor in request.inputs:
        if tensor.name in found:
            raise BadRequest(f"the input {tensor.name!r} stands twice; give it once")
        if tensor.name not in columns:
            raise BadRequest(f"unknown input {tensor.name!r:.100}; the task takes {', '.join(columns)}")
        if tensor.shape[0] > most:
            raise TooLarge(f"the request holds {tensor.shape[0]} rows, expected at most {most}; send several requests")
        found[tensor.name], tensors = _values(tensor, tensors)
    missing = [name for name in columns if name not in found]
    if missing:
        raise BadRequest(f"the input {missing[0]!r} is missing; the task takes {', '.join(columns)}")
    if tensors:
        raise BadRequest(f"{len(tensors)} bytes follow the last tensor; give each input's {SIZE}")
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        raise BadRequest(f"the inputs have {counts} rows, expected as many in each")
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def _values(tensor: InputTensor, behind: bytes) -> tuple[list[str], bytes]:
    """A tensor's texts, and what is behind them."""
    size = (tensor.parameters or {}).get(SIZE)
    if (size is None) == (tensor.data is None):
        has = "neither data nor" if size is None else "both data and"
        raise BadRequest(f"the input {tensor.name!r} has {has} {SIZE}; give one")
    if size is None:
        given = tensor.data or []
        nested = [part for part in given if not isinstance(part, str)]
        if nested and (len(tensor.shape) == 1 or any(len(part) != 1 for part in nested)):
            raise BadRequest(f"the input {tensor.name!r} has data that is not of its shape {tensor.shape}")
        values = [part if isinstance(part, str) else part[0] for part in given]
    else:
        if type(size) is not int or not 0 <= size <= len(behind):
            raise BadRequest(f"the input {tensor.name!r} has {SIZE} {size!r:.20}, but {len(behind)} bytes are left")
        values, behind = _strings(tensor.name, behind[:size], tensor.shape[0]), behind[size:]
    rows, *more = tensor.shape
    if more not in ([], [1]) or rows != len(values):
        raise BadRequest(
            f"the input {tensor.name!r} has the shape {tensor.shape} and {len(values)} texts, expected [rows] or "
            "[rows, 1]"
        )
    return values, behind


def _strings(name: str, data: bytes, rows: int) -> list[str]:
    """Read texts, each behind its length in four bytes, the lowest first, as many as the shape has rows."""
    texts: list[str] = []
    place = 0
    while place < len(data):
        if len(texts) == rows:
            raise BadRequest(f"the input {name!r} has more than {rows} texts, expected as many as its shape has rows")
        start = place + 4
        end = start + int.from_bytes(data[place:start], "little")
        if end > len(data):
            raise BadRequest(f"the input {name!r} ends in the middle of a text; give each text's length in four bytes")
        try:
            texts.append(data[start:end].decode())
        except UnicodeDecodeError:
            raise BadRequest(f"the input {name!r} holds a text that is not UTF-8; encode it so") from None
        place = end
    return texts


Output = tuple[Datatype, NDArray[Any] | list[str]]


def outputs_of(answers: Sequence[Answer], described: Manifest) -> dict[str, Output]:
    """Each output's datatype and values."""
    shares = [[answer.probabilities[label] for label in described.labels] for answer in answers]
    found: dict[str, Output] = {
        "label": ("BYTES", [answer.label for answer in answers]),
        "probabilities": ("FP32", np.array(shares, dtype=np.float32)),
        "truncated": ("BOOL", np.array([answer.truncated for answer in answers])),
    }
    if described.numbers:
        found["value"] = ("FP64", np.array([answer.value for answer in answers], dtype=np.float64))
    return found


def check_outputs(request: InferRequest, described: Manifest) -> None:
    """Refuses an output that the task does not give.

    Raises:
        BadRequest: it is asked for.
    """
    known = [output.name for output in metadata("", described).outputs]
    _flag(request.parameters, "binary_data_output")
    for wanted in request.outputs or []:
        _flag(wanted.parameters, BINARY)
        if wanted.name not in known:
            raise BadRequest(f"unknown output {wanted.name!r:.100}; the task gives {', '.join(known)}")


def _flag(parameters: Mapping[str, Any] | None, name: str, otherwise: bool = False) -> bool:
    """A parameter that is true or false.

    Raises:
        BadRequest: it is neither.
    """
    value = (parameters or {}).get(name, otherwise)
    if not isinstance(value, bool):
        raise BadRequest(f"the parameter {name} is {value!r:.40}, expected true or false")
    return value


def response(
    name: str, request: InferRequest, answers: Sequence[Answer], described: Manifest
) -> tuple[bytes, int | None]:
    """A response's body, and how much of it is JSON if tensors follow."""
    everything = outputs_of(answers, described)
    binary = _flag(request.parameters, "binary_data_output")
    wanted = {one.name: _flag(one.parameters, BINARY, binary) for one in request.outputs or []}
    tensors, behind = [], []
    for output, as_binary in (wanted or dict.fromkeys(everything, binary)).items():
        datatype, values = everything[output]
        shape = [len(values)] if isinstance(values, list) else list(values.shape)
        if as_binary:
            data = _packed(values)
            behind.append(data)
            tensors.append(OutputTensor(name=output, shape=shape, datatype=datatype, parameters={SIZE: len(data)}))
        else:
            plain = values if isinstance(values, list) else values.ravel().tolist()
            tensors.append(OutputTensor(name=output, shape=shape, datatype=datatype, data=plain))
    said = InferResponse(model_name=name, model_version=VERSION, id=request.id, outputs=tensors)
    body = said.model_dump_json(exclude_none=True).encode()
    return b"".join([body, *behind]), len(body) if behind else None


def _packed(values: NDArray[Any] | list[str]) -> bytes:
    if isinstance(values, list):
        encoded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    return values.tobytes()
