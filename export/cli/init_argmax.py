"""Reads how many classes a graph tells apart that answers class ids alone: the channels that its ArgMax looks over."""

from __future__ import annotations

from pathlib import Path

import onnx

_BEHIND = frozenset(("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose"))  # move ids, change none


def argmax_classes(file: Path, output: str) -> int | None:
    """Returns the number of classes; None where `output` is no ArgMax over channels of a known number."""
    model = onnx.shape_inference.infer_shapes(onnx.load(file, load_external_data=False))
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _BEHIND:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "ArgMax":
        return None
    shapes = {each.name: each.type.tensor_type.shape.dim for each in (*model.graph.value_info, *model.graph.input)}
    sides = shapes.get(node.input[0], ())
    axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
    return sides[axis].dim_value or None if -len(sides) <= axis < len(sides) else None
