"""Reads nodes and constants of an ONNX file without the `onnx` package, which servers do not install.

Only what `layer_precision.py` and `two_four.py` ask for is read. Weights are mapped, and not touched before their array
is asked for, so that a file of any size takes milliseconds. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GRAPH = 7  # of the model
_NODE, _INITIALIZER, _GRAPH_INPUT = 1, 5, 11  # of the graph
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5  # of a node
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 5, 8
_DIMS, _TENSOR_TYPE, _FLOATS, _INT32S, _TENSOR_NAME, _RAW, _EXTERNAL = 1, 2, 4, 5, 8, 9, 13  # of a tensor
_NUMPY_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 16: "<u2", 17: "u1"}
_BFLOAT16, _FLOAT8 = 16, 17


@dataclass(frozen=True, slots=True)
class GraphNode:
    name: str
    op_type: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    integers: Mapping[str, int]  # attributes that are one integer
    lists: Mapping[str, tuple[int, ...]]  # attributes that are several


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A constant; `array` reads it."""

    name: str
    element_type: int  # as in TensorProto.DataType
    shape: tuple[int, ...]
    raw: memoryview | None  # its bytes; None: as `numbers`, or in the file of `external`
    numbers: NDArray[Any] | None
    external: Mapping[str, str]  # location, offset and length of the bytes in another file

    def array(self, folder: Path | None) -> NDArray[Any]:
        """Its values; those of fp8 are only told from zero. Raises OSError or ValueError. `folder` holds other files.

        NumPy knows neither bfloat16, which becomes float32, nor fp8, whose sign is dropped.
        """
        kind = np.dtype(_NUMPY_TYPES.get(self.element_type, "V1"))
        if kind.kind == "V":
            raise ValueError(f"{self.name!r} has the element type {self.element_type}, which is not read here")
        if self.numbers is not None:
            bits = self.numbers.astype("<u2").view("<f2") if self.element_type == 10 else self.numbers.astype(kind)
        elif self.external and folder is not None:
            count = math.prod(self.shape)
            bits = np.fromfile(
                folder / Path(self.external["location"]).name, kind, count, offset=int(self.external.get("offset", "0"))
            )
        else:
            bits = np.frombuffer(self.raw if self.raw is not None else b"", kind)
        values = bits.reshape(self.shape)
        if self.element_type == _BFLOAT16:
            return (values.astype("<u4") << 16).view("<f4")
        return values & 0x7F if self.element_type == _FLOAT8 else values


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    nodes: tuple[GraphNode, ...]
    input_types: Mapping[str, int]  # by name, as in TensorProto.DataType
    constants: Mapping[str, StoredTensor]
    producers: Mapping[str, GraphNode]  # by the tensors that they make
    folder: Path | None = None  # of the file, for weights beside it


def read_graph(path: Path) -> OnnxGraph:
    """The main graph of a file. Raises OSError, and ValueError for bytes that are no ONNX model."""
    with path.open("rb") as file:
        # It is unmapped when nothing refers to it; closing it here would fail while an error's traceback does.
        return graph_from(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), path.parent)


def graph_from(content: memoryview, folder: Path | None = None) -> OnnxGraph:
    """The main graph of a serialized model. Raises ValueError."""
    nodes: list[GraphNode] = []
    inputs: dict[str, int] = {}
    constants: dict[str, StoredTensor] = {}
    try:
        for number, graph in _fields(content):
            if number == _GRAPH and isinstance(graph, memoryview):
                for part, value in _fields(graph):
                    if part == _NODE and isinstance(value, memoryview):
                        nodes.append(_node(value, constants))
                    elif part == _INITIALIZER and isinstance(value, memoryview):
                        tensor = _tensor(value)
                        constants[tensor.name] = tensor
                    elif part == _GRAPH_INPUT and isinstance(value, memoryview):
                        name, kind = _input(value)
                        inputs[name] = kind
    except IndexError as error:
        raise ValueError("it ends within a field") from error
    return OnnxGraph(tuple(nodes), inputs, constants, _producers(nodes), folder)


def _producers(nodes: Sequence[GraphNode]) -> dict[str, GraphNode]:
    """Nodes by what they make. Raises ValueError for a graph that is out of order, which might have no end."""
    used: set[str] = set()
    found: dict[str, GraphNode] = {}
    for node in nodes:
        used.update(node.input)
        for name in filter(None, node.output):
            if name in used:
                raise ValueError(f"{name!r} is used before it is made")
            found[name] = node
    return found


def _node(content: memoryview, constants: dict[str, StoredTensor]) -> GraphNode:
    """A node; the tensor of a Constant is added to `constants`."""
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [""], _OPERATOR: [""]}
    integers: dict[str, int] = {}
    lists: dict[str, tuple[int, ...]] = {}
    constant: StoredTensor | None = None
    for number, value in _fields(content):
        if number in texts and isinstance(value, memoryview):
            texts[number].append(str(value, "utf-8"))
        elif number == _ATTRIBUTE and isinstance(value, memoryview):
            name, several = "", []
            for part, held in _fields(value):
                if part == _ATTRIBUTE_NAME and isinstance(held, memoryview):
                    name = str(held, "utf-8")
                elif part == _ATTRIBUTE_INT and isinstance(held, int):
                    integers[name] = held
                elif part == _ATTRIBUTE_INTS:
                    several += _integers(held)
                elif part == _ATTRIBUTE_TENSOR and isinstance(held, memoryview):
                    constant = _tensor(held)
            if several:
                lists[name] = tuple(several)
    node = GraphNode(
        texts[_NAME][-1], texts[_OPERATOR][-1], tuple(texts[_INPUT]), tuple(texts[_OUTPUT]), integers, lists
    )
    if node.op_type == "Constant" and constant is not None and node.output:
        constants[node.output[0]] = constant
    return node


def _tensor(content: memoryview) -> StoredTensor:
    name, kind, shape, raw = "", 0, [], None
    numbers: NDArray[Any] | None = None
    external: dict[str, str] = {}
    for number, value in _fields(content):
        if number == _TENSOR_NAME and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS:
            shape += _integers(value)
        elif number == _RAW and isinstance(value, memoryview):
            raw = value
        elif number == _FLOATS and isinstance(value, memoryview):
            numbers = np.frombuffer(value, "<f4")
        elif number == _INT32S and isinstance(value, memoryview):
            numbers = np.array(_integers(value), "<i8")
        elif number == _EXTERNAL and isinstance(value, memoryview):
            key, text = (str(held, "utf-8") for _, held in _fields(value) if isinstance(held, memoryview))
            external[key] = text
    return StoredTensor(name, kind, tuple(shape), raw, numbers, external)


def _integers(value: int | memoryview | None) -> list[int]:
    """One integer, or several that are packed; negative ones have 64 bits."""
    if isinstance(value, int):
        return [value - (1 << 64) if value >> 63 else value]
    found: list[int] = []
    at = 0
    while value is not None and at < len(value):
        one, at = _varint(value, at)
        found += _integers(one)
    return found


def _input(content: memoryview) -> tuple[str, int]:
    """Name and element type: ValueInfoProto holds a TypeProto, and that one a tensor's type, each as field 1 or 2."""
    found = dict(_fields(content))
    kind = found.get(2)
    for _ in range(2):  # the tensor's type, then its elements'
        kind = dict(_fields(kind)).get(1) if isinstance(kind, memoryview) else 0
    name = found.get(1)
    return str(name, "utf-8") if isinstance(name, memoryview) else "", kind if isinstance(kind, int) else 0


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Number and value of each field of a message."""
    return ((number, value) for number, value, _ in spans(content))


def spans(content: memoryview) -> Iterator[tuple[int, int | memoryview | None, memoryview]]:
    """Number, value and all bytes of each field of a message; a value is an integer, bytes, or None for floats."""
    at, end = 0, len(content)
    while at < end:
        start = at
        key, at = _varint(content, at)
        match key & 7:
            case 0:
                value, at = _varint(content, at)
                yield key >> 3, value, content[start:at]
            case 2:
                length, at = _varint(content, at)
                if at + length > end:
                    raise ValueError("it ends within a field")
                yield key >> 3, content[at : at + length], content[start : at + length]
                at += length
            case 1 | 5 as wire:
                at += 8 if wire == 1 else 4
                yield key >> 3, None, content[start:at]
            case wire:
                raise ValueError(f"wire type {wire} is none of protobuf's")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("an integer has more than 64 bits")
