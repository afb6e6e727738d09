"""Inference requests of the protocol. Promises: pure; shapes and sizes are checked before anything is made of them."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import ExtraOutput
from saccade.models.contract.specs import TensorSpec
from saccade.service.api.http.image_bodies import from_base64
from saccade.service.api.http.json_entries import Scalar, ensure_few_entries
from saccade.service.errors import BadRequest

DATATYPES = {"uint8": "UINT8", "float32": "FP32", "int32": "INT32"}
_WHOLE_NUMBERS = re.compile(rb"[\d,\[\]\s]*")
_MAX_TIMEOUT_US = 2**63


class _Input(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Scalar] = {}
    data: msgspec.Raw = msgspec.Raw()  # empty: not given


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Scalar] = {}


class _Request(msgspec.Struct, frozen=True):
    inputs: list[_Input]
    outputs: list[_Output] = []
    id: str | None = None
    parameters: dict[str, Scalar] = {}


_decoder = msgspec.json.Decoder(_Request)


@dataclass(frozen=True, slots=True)
class ModelTensors:
    """What of a model a request is checked against."""

    model: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]  # the answer, which a request gets that names none
    max_batch: int
    extras: tuple[ExtraOutput, ...] = ()  # what is computed for requests that name it


@dataclass(frozen=True, slots=True)
class WantedOutput:
    name: str
    is_binary: bool
    classes: int = 0  # of the classification extension; 0: the tensor itself


@dataclass(frozen=True, slots=True)
class InferRequest:
    images: Sequence[bytes | NDArray[np.uint8]]
    outputs: tuple[WantedOutput, ...]
    request_id: str = ""
    timeout_ms: float | None = None
    priority: int = 0  # as Triton counts: 0 is the default, 1 the highest


def infer_request(body: bytes, json_bytes: bytes | None, tensors: ModelTensors) -> InferRequest:
    """`json_bytes` is the header Inference-Header-Content-Length. Raises BadRequest."""
    if json_bytes is None:
        size = len(body)
    else:
        size = int(json_bytes) if json_bytes.isdigit() and len(json_bytes) < 16 else -1
        if not 0 <= size <= len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length is {json_bytes[:20].decode('latin-1')!r}, it must be between 0 and "
                f"the content length, {len(body)}"
            )
        if size == 0:
            return _raw_request(body, tensors)
    text = body[:size]
    ensure_few_entries(text, tensors.max_batch)
    try:
        request = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the request is not as expected: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"failed to parse the request JSON: {error}") from error
    binary_by_default, timeout_ms, priority = _parameters(request.parameters)
    return InferRequest(
        _images(request.inputs, memoryview(body)[size:], tensors),
        _wanted(request.outputs, binary_by_default, tensors),
        request.id or "",
        timeout_ms,
        priority,
    )


def _raw_request(body: bytes, tensors: ModelTensors) -> InferRequest:
    """The body is the only input: pixels where it has the size of one image, else one encoded picture."""
    outputs = tuple(WantedOutput(spec.name, True) for spec in tensors.outputs)
    if len(body) == _image_bytes(tensors.input):
        return InferRequest(list(_pixels(body, 1, tensors.input)), outputs)
    return InferRequest([body], outputs)


def _parameters(given: Mapping[str, Scalar]) -> tuple[bool, float | None, int]:
    """(whether outputs are binary, timeout in ms, priority)."""
    for name in given:
        if name.startswith("triton_") or name == "headers":
            raise BadRequest(f"parameter {name!r} is reserved")
    if given.get("sequence_id"):
        raise BadRequest("sequences are not supported: every image is answered by itself; leave out sequence_id")
    timeout_us = _count(given, "timeout", _MAX_TIMEOUT_US)
    is_binary = given.get("binary_data_output", False)
    if not isinstance(is_binary, bool):
        raise BadRequest("parameter 'binary_data_output' must be true or false")
    return is_binary, timeout_us / 1000 if timeout_us else None, _count(given, "priority", 2**32)


def _count(given: Mapping[str, Scalar], name: str, limit: int) -> int:
    value = given.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise BadRequest(f"parameter {name!r} must be a whole number, at least 0")
    return value


def _images(inputs: list[_Input], binary: memoryview, tensors: ModelTensors) -> Sequence[bytes | NDArray[np.uint8]]:
    spec, model = tensors.input, tensors.model
    if len(inputs) != 1:
        names = [given.name for given in inputs]
        if len(set(names)) < len(names):
            raise BadRequest(f"input {names[0]!r} is there more than once for model {model!r}")
        if all(name == spec.name for name in names):
            raise BadRequest(f"expected 1 inputs but got {len(inputs)} inputs for model {model!r}")
    for given in inputs:
        if given.name != spec.name:
            raise BadRequest(
                f"unexpected inference input {given.name!r} for model {model!r}; its input is {spec.name!r}"
            )
    (given,) = inputs
    if "shared_memory_region" in given.parameters:
        raise BadRequest(f"input {given.name!r} is in shared memory, which this server does not map: send its data")
    count = _batch_size(given, tensors)
    content = _content(given, binary, model)
    if given.datatype == "BYTES":
        return _elements(content, count, given.name) if isinstance(content, memoryview) else _texts(content, count)
    if isinstance(content, memoryview):
        expected = count * _image_bytes(spec)
        if len(content) != expected:
            raise BadRequest(
                f"unexpected total byte size {len(content)} for input {given.name!r}, expecting {expected}"
            )
        return list(_pixels(content, count, spec))
    return list(_pixels(_numbers(content, count * _image_bytes(spec), given.name), count, spec))


def _batch_size(given: _Input, tensors: ModelTensors) -> int:
    """The first dimension of a shape that fits; nothing is made of one that does not."""
    spec, shape = tensors.input, given.shape
    if given.datatype == "BYTES":
        fits = len(shape) == 1 or shape[1:] == [1]
        expected = "[-1]"
    elif given.datatype == DATATYPES[spec.dtype]:
        fits = shape[1:] == list(spec.shape)
        expected = str([-1, *spec.shape])
    else:
        raise BadRequest(
            f"inference input {given.name!r} data-type is {given.datatype[:20]!r}, but model {tensors.model!r} expects "
            f"'{DATATYPES[spec.dtype]}', or 'BYTES' of encoded pictures"
        )
    if not shape or not fits or shape[0] < 1:
        raise BadRequest(
            f"unexpected shape for input {given.name!r} for model {tensors.model!r}. Expected {expected}, got "
            f"{str(shape)[:80]}"
        )
    if shape[0] > tensors.max_batch:
        raise BadRequest(f"inference request batch-size must be <= {tensors.max_batch} for {tensors.model!r}")
    return shape[0]


def _content(given: _Input, binary: memoryview, model: str) -> memoryview | bytes:
    """Binary data as a memoryview, JSON data as its text."""
    size, text = given.parameters.get("binary_data_size"), bytes(given.data)
    if size is None:
        if not text:
            raise BadRequest(f"input {given.name!r} has neither data nor binary_data_size for model {model!r}")
        if len(binary):
            raise BadRequest(f"unexpected additional input data for model {model!r}")
        return text
    if text:
        raise BadRequest(f"input {given.name!r} has both data and binary_data_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadRequest(f"binary_data_size of input {given.name!r} must be a whole number, at least 0")
    if size > len(binary):
        raise BadRequest(f"input {given.name!r}: expecting {size - len(binary)} additional bytes for model {model!r}")
    if size < len(binary):
        raise BadRequest(f"unexpected additional input data for model {model!r}")
    return binary


def _image_bytes(spec: TensorSpec) -> int:
    height, width, channels = spec.shape
    return height * width * channels


def _pixels(
    content: bytes | memoryview | NDArray[np.uint8], count: int, spec: TensorSpec
) -> Iterator[NDArray[np.uint8]]:
    """(height, width, 3) views, one per image."""
    yield from np.frombuffer(content, np.uint8).reshape(count, *spec.shape)


def _numbers(text: bytes, count: int, name: str) -> NDArray[np.uint8]:
    """JSON's whole numbers, flat or nested."""
    flat = text.translate(None, b"[] \t\r\n") if _WHOLE_NUMBERS.fullmatch(text) else b""
    if not flat or flat.count(b",") + 1 != count or b",," in flat or flat[:1] == b"," or flat[-1:] == b",":
        raise BadRequest(f"data of input {name!r} must be {count} whole numbers from 0 to 255, flat or nested")
    values = np.fromstring(flat, np.int64, sep=",")
    if len(values) != count or values.max() > 255:
        raise BadRequest(f"data of input {name!r} must be {count} whole numbers from 0 to 255, flat or nested")
    return values.astype(np.uint8)


def _elements(content: memoryview, count: int, name: str) -> list[bytes]:
    """Each with its length before it, four bytes, lowest first."""
    found: list[bytes] = []
    position = 0
    while position < len(content) and len(found) < count:
        end = position + 4 + int.from_bytes(content[position : position + 4], "little")
        if end > len(content):
            break
        found.append(bytes(content[position + 4 : end]))
        position = end
    if len(found) != count or position != len(content):
        raise BadRequest(f"input {name!r} does not hold {count} elements, each a 4-byte length and its bytes")
    return found


def _texts(text: bytes, count: int) -> list[bytes]:
    try:
        given = msgspec.json.decode(text)
        flat = [item for each in given for item in (each if isinstance(each, list) else [each])]
        found = [from_base64(item) for item in flat]
    except (TypeError, AttributeError, msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise BadRequest("BYTES as JSON are base64 of encoded pictures, one text each") from error
    if len(found) != count:
        raise BadRequest(f"BYTES hold {len(found)} pictures, the shape says {count}")
    return found


def _wanted(outputs: list[_Output], binary_by_default: bool, tensors: ModelTensors) -> tuple[WantedOutput, ...]:
    if not outputs:
        return tuple(WantedOutput(spec.name, binary_by_default) for spec in tensors.outputs)
    known = [*(spec.name for spec in tensors.outputs), *(extra.output.name for extra in tensors.extras)]
    names = [given.name for given in outputs]
    for name in names:
        if name not in known:
            raise BadRequest(
                f"unexpected inference output {name[:80]!r} for model {tensors.model!r}; there are: {', '.join(known)}"
            )
        if names.count(name) > 1:
            raise BadRequest(f"output {name!r} is there more than once")
    return tuple(_wanted_output(given, binary_by_default, tensors) for given in outputs)


def _wanted_output(given: _Output, binary_by_default: bool, tensors: ModelTensors) -> WantedOutput:
    is_binary = given.parameters.get("binary_data", binary_by_default)
    if not isinstance(is_binary, bool):
        raise BadRequest(f"binary_data of output {given.name!r} must be true or false")
    if "shared_memory_region" in given.parameters:
        raise BadRequest(f"output {given.name!r} is wanted in shared memory, which this server does not map")
    classes = _count(given.parameters, "classification", 2**31)
    if classes and (given.name != "scores" or [spec.name for spec in tensors.outputs] != ["scores", "class_ids"]):
        raise BadRequest(f"classification of output {given.name!r}: only a classifier's 'scores' have classes")
    return WantedOutput(given.name, is_binary, classes)
