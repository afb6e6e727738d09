"""Makes float32 of an ONNX file's half precision, since processors compute in it and the proof needs a reference.

Every value of float16 and bfloat16 is one of float32, so weights stay what they are; only rounding between operations
goes. Variants of lower precision are made of the result, as of any network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import numpy_helper

_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = ("to", "dtype")  # of Cast, of EyeLike and the random ones


def is_half(model: onnx.ModelProto) -> bool:
    """Tells whether weights or values between operations are of half precision."""
    return any(tensor.data_type in _HALF for tensor in _tensors(model)) or any(
        value.type.tensor_type.elem_type in _HALF for graph in _graphs(model) for value in _values(graph)
    )


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with float32 in place of half precision, inputs and outputs too; it is changed itself."""
    for tensor in _tensors(model):
        if tensor.data_type in _HALF:
            wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            tensor.CopyFrom(wide)
    for graph in _graphs(model):
        for value in _values(graph):
            if value.type.tensor_type.elem_type in _HALF:
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF:
                attribute.i = onnx.TensorProto.FLOAT
    return model


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yields the graph and those inside of its nodes and of functions, such as branches of If."""
    yield from _with_inner(model.graph)
    for function in model.functions:
        yield from _inner(function.node)


def _with_inner(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    yield from _inner(graph.node)


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _with_inner(graph)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        yield from (sparse.values for sparse in graph.sparse_initializer)
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
