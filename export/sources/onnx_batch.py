"""Removes the fixed batch of one from a graph when two pictures show that each is still answered alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_TOLERANCE = 1e-4  # relative to the output's largest value; batched kernels sum in another order
_BATCH = "batch"

Run = Callable[[NDArray[Any]], list[NDArray[Any]]]


def with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy whose input and outputs leave the batch open; None when shapes of the graph are unknown.

    Reshapes to a constant shape that begins with 1 copy the batch instead, where their input begins with it.
    """
    try:
        shapes = onnx.shape_inference.infer_shapes(model)
    except Exception:  # the C++ side raises what it likes; the file then keeps its batch of one
        return None
    first_sizes = {
        value.name: value.type.tensor_type.shape.dim[0].dim_value
        for value in (*shapes.graph.value_info, *shapes.graph.input, *shapes.graph.output)
        if value.type.tensor_type.shape.dim
    }
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    constants = _constants(changed.graph)
    for index, node in enumerate(changed.graph.node):
        if node.op_type == "Reshape" and node.input[1] in constants and first_sizes.get(node.input[0], 1) == 1:
            _copy_batch(changed.graph, node, constants[node.input[1]], f"{node.input[1]}/batch_{index}")
    initialized = {tensor.name for tensor in changed.graph.initializer}
    for value in (*changed.graph.input, *changed.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name not in initialized and dims and dims[0].dim_value == 1:
            dims[0].dim_param = _BATCH
    del changed.graph.value_info[:]
    return changed


def answers_each_alone(together: Run, alone: Run, pair: NDArray[Any]) -> bool:
    """Whether two pictures together get what the file as it was gives each alone; a run that fails means no."""
    try:
        pairs = together(pair)
        singles = [alone(pair[index : index + 1]) for index in range(2)]
    except Exception:  # ONNX Runtime's errors share no public class; a shape that does not fit is the expected one
        return False
    for found, *parts in zip(pairs, *singles, strict=True):
        expected = np.concatenate(parts)
        if found.shape != expected.shape:
            return False
        scale = float(np.abs(expected.astype(np.float64)).max(initial=0.0)) or 1.0
        if not np.abs(found.astype(np.float64) - expected).max(initial=0.0) <= _TOLERANCE * scale:
            return False
    return True


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.int64]]:
    """Integer vectors that the graph holds, by name."""
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1
    }
    for node in graph.node:
        if node.op_type == "Constant":
            value = helper.get_node_attr_value(node, node.attribute[0].name)
            if isinstance(value, onnx.TensorProto) and value.data_type == onnx.TensorProto.INT64:
                found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _copy_batch(graph: onnx.GraphProto, node: onnx.NodeProto, shape: NDArray[np.int64], name: str) -> None:
    takes_zero = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
    if takes_zero or shape.ndim != 1 or not len(shape) or shape[0] != 1:
        return
    graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name))
    node.input[1] = name
