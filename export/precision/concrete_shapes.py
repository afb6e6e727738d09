"""Computes all tensor shapes of a graph for one image, without running it and without copying its weights.

ONNX's own inference stops where a shape is computed from a shape, as when a Reshape takes sizes that a Gather made of
the batch. For one image all of that is constant, so it is evaluated node by node until inference reaches the end.
"""

from __future__ import annotations

import math
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from saccade.export.graph.graph_rewrites import attribute

_SMALL = 4096  # elements: enough for shapes, axes, scales and indices, which inference needs to read
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_NEVER_EVALUATED = frozenset({"If", "Loop", "Scan", "RandomNormal", "RandomUniform", "NonMaxSuppression"})

_RUNTIME_DOMAIN = "com.microsoft"
# by operator: a standard one of the same shapes, and which inputs are its
_SAME_SHAPES: dict[str, tuple[str, slice]] = {
    "QLinearAdd": ("Add", slice(0, 4, 3)),
    "QLinearMul": ("Mul", slice(0, 4, 3)),
    "QLinearSigmoid": ("Sigmoid", slice(0, 1)),
    "QLinearLeakyRelu": ("LeakyRelu", slice(0, 1)),
    "QLinearSoftmax": ("Softmax", slice(0, 1)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", slice(0, 1)),
    "QLinearAveragePool": ("AveragePool", slice(0, 1)),
    "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QGemm": ("Gemm", slice(0, 4, 3)),
}

Shapes = dict[str, tuple[int, ...]]


def concrete_shapes(model: onnx.ModelProto) -> Shapes:
    """Returns shapes by tensor when the graph gets one image; a side that depends on data is 0."""
    bare = without_weights(model)
    _use_standard_operators(bare.graph)
    for value in (*bare.graph.input[:1], *bare.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].dim_value:
            dimensions[0].dim_value = 1
    while True:
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
        known = _shapes_in(graph)
        if not _evaluate(bare, known):
            return known | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def _use_standard_operators(graph: onnx.GraphProto) -> None:
    """Replaces ONNX Runtime's operators on quantized values by standard ones that give the same shapes."""
    for node in graph.node:
        if node.domain != _RUNTIME_DOMAIN or node.op_type not in _SAME_SHAPES:
            continue
        node.op_type, places = _SAME_SHAPES[node.op_type]
        kept = [node.input[place] for place in range(len(node.input))[places]]
        del node.input[:]
        node.input.extend(kept)
        node.domain = ""


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy for inference only: large constants become inputs, so that gigabytes are not copied."""
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.graph.name = model.graph.name
    copy.graph.node.extend(model.graph.node)
    copy.graph.output.extend(model.graph.output)
    copy.graph.input.extend(model.graph.input)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def _evaluate(model: onnx.ModelProto, shapes: Shapes) -> bool:
    """Replaces nodes of small integers whose inputs are constant by now; returns False when there was none."""
    constants: dict[str, NDArray[Any]] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in _INTEGERS and math.prod(tensor.dims) <= _SMALL
    }
    found: dict[str, NDArray[Any]] = {}
    done: list[onnx.NodeProto] = []
    for node in model.graph.node:
        value = _value_of(node, constants, shapes, model)
        if value is not None:
            constants[node.output[0]] = found[node.output[0]] = value
            done.append(node)
    for node in done:
        model.graph.node.remove(node)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in found.items())
    return bool(done)


def _value_of(
    node: onnx.NodeProto, constants: dict[str, NDArray[Any]], shapes: Shapes, model: onnx.ModelProto
) -> NDArray[Any] | None:
    if len(node.output) != 1 or node.op_type in _NEVER_EVALUATED or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Shape":
        return _measured(node, shapes.get(node.input[0]))
    inputs = [name for name in node.input if name]
    if any(name not in constants for name in inputs) or (not inputs and node.op_type != "Constant"):
        return None
    if math.prod(shapes.get(node.output[0], (_SMALL + 1,))) > _SMALL:
        return None
    opsets = {each.domain: each.version for each in model.opset_import}
    answers: Any = ReferenceEvaluator(node, opsets=opsets).run(None, {name: constants[name] for name in inputs})
    value: NDArray[Any] = answers[0]
    return value if helper.np_dtype_to_tensor_dtype(value.dtype) in _INTEGERS else None


def _measured(node: onnx.NodeProto, shape: tuple[int, ...] | None) -> NDArray[Any] | None:
    """Returns a Shape node's output when the part of the shape that it reads is known."""
    if shape is None:
        return None
    part = shape[attribute(node, "start", 0) : attribute(node, "end", None)]
    if any(side <= 0 for side in part):
        return None
    tensor = helper.make_tensor("shape", TensorProto.INT64, [len(part)], part)
    return numpy_helper.to_array(tensor)


def _shapes_in(graph: onnx.GraphProto) -> Shapes:
    return {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }
