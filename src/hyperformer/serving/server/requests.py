"""Parse and check requests of the Open Inference Protocol, version 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from hyperformer.core.manifest import Manifest
from hyperformer.serving.server.messages import (
    BINARY_DATA,
    BINARY_SIZE,
    LENGTH_HEADER,
    BadRequestError,
    InferRequest,
    InputTensor,
    RequestTooLargeError,
    describe_task,
)

MAX_LENGTH_DIGITS = 12  # maximum number of digits of a length in a header
EXTRA_STRINGS = 1024  # maximum number of strings of a request other than texts: names, and values of parameters
EXTRA_BYTES = 64 << 10  # maximum number of bytes of JSON outside of strings, besides those around texts
EXTRA_TEXT_BYTES = 64  # maximum number of bytes around a text in JSON: a comma, brackets and indentation


def parse_request(body: bytes, json_length: str | None, max_texts: int) -> tuple[InferRequest, bytes]:
    """Parse a body, and return the request and the binary tensors after its JSON.

    Args:
        body: the body of the request.
        json_length: the value of the header `Inference-Header-Content-Length`; None if the request does not have it.
        max_texts: the maximum number of texts in a request of this task.

    Raises:
        BadRequestError: the body is not a valid request.
        RequestTooLargeError: the JSON has too many strings, or too many bytes outside of strings, for a request.
    """
    length = len(body)
    if json_length is not None:
        if not json_length.isdecimal() or len(json_length) > MAX_LENGTH_DIGITS or int(json_length) > len(body):
            raise BadRequestError(
                f"{LENGTH_HEADER} is {json_length[:20]!r}; expected the length of the JSON, at most {len(body)} bytes"
            )
        length = int(json_length)
    check_structure(body[:length], max_texts)
    try:
        return InferRequest.model_validate_json(body[:length]), body[length:]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        location = ".".join(map(str, first["loc"])) or "request body"
        advice = "Send a request of the Open Inference Protocol, version 2"
        if first["type"] == "string_type" and "data" in first["loc"]:
            advice = 'Send the text of each value, such as "7" for the number 7'
        raise BadRequestError(f"{location}: {first['msg']}. {advice}.") from None


def check_structure(body: bytes, max_texts: int) -> None:
    """Refuse JSON with too many strings, or too many bytes outside of strings, before it is parsed.

    A parser blocks the interpreter while it creates an object for each value; counting bytes takes a thousandth of
    the time.

    Raises:
        RequestTooLargeError: the JSON has too many strings, or too many bytes outside of strings.
    """
    if b"\\" in body:  # without escapes, every quote starts or ends a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings, limit = body.count(b'"') // 2, max_texts + EXTRA_STRINGS
    if strings > limit:
        raise RequestTooLargeError(f"the JSON has {strings} strings; expected at most {limit}. Split the request.")
    outside, limit = sum(map(len, body.split(b'"')[::2])), EXTRA_TEXT_BYTES * max_texts + EXTRA_BYTES
    if outside > limit:
        raise RequestTooLargeError(
            f"the JSON has {outside} bytes outside of strings; expected at most {limit}. Remove other data."
        )


def extract_rows(
    request: InferRequest,
    tensors: bytes,
    columns: Sequence[str],
    max_rows: int,
    missing: Literal["empty"] | None = None,
) -> list[dict[str, str]]:
    """Return the rows of a request, each as a mapping of columns to texts.

    Args:
        request: the request; each input has its texts, or their size in `tensors`.
        tensors: the binary tensors after the JSON.
        columns: the columns of the task's text, which are the names of its inputs.
        max_rows: the maximum number of rows.
        missing: `empty` if an input may be missing, because the task reads a missing value as an empty text.

    Raises:
        BadRequestError: the inputs do not match the task's columns, each other, or their shapes.
        RequestTooLargeError: the request has more than `max_rows` rows.
    """
    texts: dict[str, list[str]] = {}
    for tensor in request.inputs:
        if tensor.name in texts:
            raise BadRequestError(f"duplicate input {tensor.name!r}; expected each input once")
        if tensor.name not in columns:
            raise BadRequestError(f"unknown input {tensor.name!r:.100}; expected the inputs {', '.join(columns)}")
        if tensor.shape[0] > max_rows:
            raise RequestTooLargeError(
                f"the request has {tensor.shape[0]} rows; expected at most {max_rows}. Split the request."
            )
        texts[tensor.name], tensors = _read_texts(tensor, tensors)
    absent = [name for name in columns if name not in texts]
    if absent and missing is None:
        raise BadRequestError(f"missing input {absent[0]!r}; expected the inputs {', '.join(columns)}")
    if tensors:
        raise BadRequestError(
            f"{len(tensors)} bytes follow the last tensor; expected none. Set {BINARY_SIZE} of each input to its size."
        )
    counts = {name: len(values) for name, values in texts.items()}
    if len(set(counts.values())) > 1:
        raise BadRequestError(f"the inputs have different numbers of rows, {counts}; expected the same number in each")
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


def _read_texts(tensor: InputTensor, binary: bytes) -> tuple[list[str], bytes]:
    """Return the texts of an input, and the rest of the binary tensors."""
    size = (tensor.parameters or {}).get(BINARY_SIZE)
    if (size is None) == (tensor.data is None):
        fields = "neither data nor" if size is None else "both data and"
        raise BadRequestError(f"input {tensor.name!r} has {fields} {BINARY_SIZE}; expected exactly one of them")
    if size is None:
        data = tensor.data or []
        nested = [row for row in data if not isinstance(row, str)]
        if nested and (len(tensor.shape) == 1 or any(len(row) != 1 for row in nested)):
            raise BadRequestError(f"the data of input {tensor.name!r} does not match its shape {tensor.shape}")
        values = [row if isinstance(row, str) else row[0] for row in data]
    else:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise BadRequestError(
                f"input {tensor.name!r} has {BINARY_SIZE} {size!r:.20}; expected at most the {len(binary)} bytes left"
            )
        values, binary = _decode_texts(tensor.name, binary[:size], tensor.shape[0]), binary[size:]
    rows, *other_dims = tensor.shape
    if other_dims not in ([], [1]) or rows != len(values):
        raise BadRequestError(
            f"input {tensor.name!r} has shape {tensor.shape} and {len(values)} texts; expected [rows] or [rows, 1]"
        )
    return values, binary


def _decode_texts(name: str, data: bytes, rows: int) -> list[str]:
    """Decode at most `rows` texts; the length of each text is in the 4 bytes before it (little-endian)."""
    texts: list[str] = []
    position = 0
    while position < len(data):
        if len(texts) == rows:
            raise BadRequestError(f"input {name!r} has more than {rows} texts; expected {rows}, as in its shape")
        start = position + 4
        end = start + int.from_bytes(data[position:start], "little")
        if end > len(data):
            raise BadRequestError(
                f"input {name!r} ends in the middle of a text; expected the length of each text in 4 bytes before it"
            )
        try:
            texts.append(data[start:end].decode())
        except UnicodeDecodeError:
            raise BadRequestError(f"input {name!r} has a text that is not valid UTF-8") from None
        position = end
    return texts


def check_outputs(request: InferRequest, manifest: Manifest) -> None:
    """Refuse outputs that the task does not have, and invalid parameters for binary outputs.

    Raises:
        BadRequestError: an output is unknown, or a parameter is not a boolean.
    """
    known = [output.name for output in describe_task("", manifest).outputs]
    read_flag(request.parameters, "binary_data_output")
    for output in request.outputs or []:
        read_flag(output.parameters, BINARY_DATA)
        if output.name not in known:
            raise BadRequestError(f"unknown output {output.name!r:.100}; expected one of {', '.join(known)}")


def read_flag(parameters: Mapping[str, Any] | None, name: str, default: bool = False) -> bool:
    """Return a boolean parameter, or `default` if it is missing.

    Raises:
        BadRequestError: the parameter is not a boolean.
    """
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise BadRequestError(f"parameter {name} is {value!r:.40}; expected true or false")
    return value
