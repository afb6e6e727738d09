"""Turns an antialiased Resize of a fixed size into two matrix products with ONNX Runtime's own weights.

TensorRT resizes without antialiasing. A separable filter between fixed sizes is one constant matrix per axis; running
Resize itself on the identity gives that matrix for every mode and coordinate transformation.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.graph_rewrites import attribute, constants_of, drop_dead_nodes, tensor_shapes
from saccade.export.graph.sessions import cpu_session


def use_products_for_antialiased_resize(model: onnx.ModelProto) -> int:
    """Rewrites every antialiased Resize from (n, c, h, w) whose sides are known; returns how many there were."""
    nodes = [node for node in model.graph.node if node.op_type == "Resize" and bool(attribute(node, "antialias", 0))]
    count = 0
    for node in nodes:
        shapes = tensor_shapes(model)
        source, target = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        before, after = _sides(source), _sides(target) or _constant_target(model, node)
        if before is None or after is None:
            continue
        _replace(model, node, *(_axis_matrix(node, *sides) for sides in zip(before, after, strict=True)))
        count += 1
    if count:
        drop_dead_nodes(model)
    return count


def _sides(shape: tuple[int | str, ...]) -> tuple[int, int] | None:
    """Returns height and width of (n, c, h, w) where both are known."""
    if len(shape) != 4 or not all(isinstance(side, int) and side > 0 for side in shape[2:]):
        return None
    return int(shape[2]), int(shape[3])


def _constant_target(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[int, int] | None:
    """Returns the last two of `sizes` where they are constants behind a computed batch."""
    if len(node.input) < 4 or not node.input[3]:
        return None
    constants = constants_of(model)
    producer = next((other for other in model.graph.node if node.input[3] in other.output), None)
    tail = constants.get(node.input[3] if producer is None else producer.input[-1])
    return None if tail is None or tail.size < 2 else (int(tail[-2]), int(tail[-1]))


def _axis_matrix(node: onnx.NodeProto, source: int, target: int) -> NDArray[np.float32]:
    """Returns the matrix (target, source) whose column i is how Resize spreads pixel i."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:]
    alone.input.extend(["pixels", "", "", "sizes"])
    del alone.output[:]
    alone.output.append("resized")
    kept = [given for given in alone.attribute if given.name not in ("axes", "keep_aspect_ratio_policy")]
    del alone.attribute[:]
    alone.attribute.extend(kept)
    graph = helper.make_graph(
        [alone],
        "one_axis",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 1, source, source])],
        [helper.make_tensor_value_info("resized", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, target, source], np.int64), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = cpu_session(model.SerializeToString())
    matrix: NDArray[np.float32] = session.run(None, {"pixels": np.eye(source, dtype=np.float32)[None, None]})[0][0, 0]
    return matrix


def _replace(
    model: onnx.ModelProto, node: onnx.NodeProto, rows: NDArray[np.float32], columns: NDArray[np.float32]
) -> None:
    name = f"{node.name}_as_products"
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(rows, f"{name}_rows"),
            numpy_helper.from_array(np.ascontiguousarray(columns.T), f"{name}_columns"),
        ]
    )
    across = helper.make_node("MatMul", [node.input[0], f"{name}_columns"], [f"{name}_wide"], name=f"{name}_across")
    down = helper.make_node("MatMul", [f"{name}_rows", f"{name}_wide"], [node.output[0]], name=f"{name}_down")
    position = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    model.graph.node.insert(position, down)
    model.graph.node.insert(position, across)
