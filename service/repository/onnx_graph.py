"""Reads nodes and constants of an ONNX file without the `onnx` package, which servers do not install.

Only what `layer_precision.py` asks for is read: names, operators, types and sizes. The weights themselves are passed
over, so that a file of any size takes milliseconds. Field numbers are those of onnx.proto (IR version 3 and later).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GRAPH = 7  # of the model
_NODE, _INITIALIZER, _GRAPH_INPUT = 1, 5, 11  # of the graph
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5  # of a node
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR = 1, 3, 5
_TENSOR_TYPE, _TENSOR_NAME = 2, 8


@dataclass(frozen=True, slots=True)
class GraphNode:
    name: str
    op_type: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    integers: Mapping[str, int]  # attributes that are one integer


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    nodes: tuple[GraphNode, ...]
    input_types: Mapping[str, int]  # by name, as in TensorProto.DataType
    constant_types: Mapping[str, int]
    producers: Mapping[str, GraphNode]  # by the tensors that they make


def read_graph(path: Path) -> OnnxGraph:
    """The main graph of a file. Raises OSError, and ValueError for bytes that are no ONNX model."""
    with path.open("rb") as file:
        # It is unmapped when nothing refers to it; closing it here would fail while an error's traceback does.
        return graph_from(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def graph_from(content: memoryview) -> OnnxGraph:
    """The main graph of a serialized model. Raises ValueError."""
    nodes: list[GraphNode] = []
    inputs: dict[str, int] = {}
    types: dict[str, int] = {}
    try:
        for number, graph in _fields(content):
            if number == _GRAPH and isinstance(graph, memoryview):
                for part, value in _fields(graph):
                    if part == _NODE and isinstance(value, memoryview):
                        nodes.append(_node(value, types))
                    elif part == _INITIALIZER and isinstance(value, memoryview):
                        name, kind = _tensor(value)
                        types[name] = kind
                    elif part == _GRAPH_INPUT and isinstance(value, memoryview):
                        name, kind = _input(value)
                        inputs[name] = kind
    except IndexError as error:
        raise ValueError("it ends within a field") from error
    return OnnxGraph(tuple(nodes), inputs, types, _producers(nodes))


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


def _node(content: memoryview, types: dict[str, int]) -> GraphNode:
    """A node; the type of a Constant's tensor is added to `types`."""
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [""], _OPERATOR: [""]}
    integers: dict[str, int] = {}
    constant: int | None = None
    for number, value in _fields(content):
        if number in texts and isinstance(value, memoryview):
            texts[number].append(str(value, "utf-8"))
        elif number == _ATTRIBUTE and isinstance(value, memoryview):
            attribute = dict(_fields(value))
            name, integer, tensor = (attribute.get(key) for key in (_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR))
            if isinstance(name, memoryview) and isinstance(integer, int):
                integers[str(name, "utf-8")] = integer
            if isinstance(tensor, memoryview):
                constant = _tensor(tensor)[1]
    node = GraphNode(texts[_NAME][-1], texts[_OPERATOR][-1], tuple(texts[_INPUT]), tuple(texts[_OUTPUT]), integers)
    if node.op_type == "Constant" and constant is not None and node.output:
        types[node.output[0]] = constant
    return node


def _tensor(content: memoryview) -> tuple[str, int]:
    name, kind = "", 0
    for number, value in _fields(content):
        if number == _TENSOR_NAME and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
    return name, kind


def _input(content: memoryview) -> tuple[str, int]:
    """Name and element type: ValueInfoProto holds a TypeProto, and that one a tensor's type, each as field 1 or 2."""
    found = dict(_fields(content))
    kind = found.get(2)
    for _ in range(2):  # the tensor's type, then its elements'
        kind = dict(_fields(kind)).get(1) if isinstance(kind, memoryview) else 0
    name = found.get(1)
    return str(name, "utf-8") if isinstance(name, memoryview) else "", kind if isinstance(kind, int) else 0


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Number and value of each field of a message: an integer, the bytes of a longer one, None for floats."""
    at, end = 0, len(content)
    while at < end:
        key, at = _varint(content, at)
        match key & 7:
            case 0:
                value, at = _varint(content, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(content, at)
                if at + length > end:
                    raise ValueError("it ends within a field")
                yield key >> 3, content[at : at + length]
                at += length
            case 1 | 5 as wire:
                yield key >> 3, None
                at += 8 if wire == 1 else 4
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
