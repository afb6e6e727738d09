"""Bytes at the front of a graph, as TensorRT takes them. Promises: the same graph with uint8 read by one Cast only.

TensorRT knows uint8 as the type of an input that is cast at once; it transposes, measures and dequantizes floats.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

_FLOATS = "images_as_float"


def cast_bytes_first(model: onnx.ModelProto, name: str = "images") -> None:
    """Moves the Cast in front of everything that reads the uint8 input; casts that follow are dropped."""
    moved = {name}  # tensors that were bytes and become floats
    for node in list(model.graph.node):
        if not moved.intersection(node.input):
            continue
        if node.op_type == "Cast" and node.input[0] in moved and _is_float(node):
            _read_instead(model, node.output[0], node.input[0])
            model.graph.node.remove(node)
        elif node.op_type in _MOVES_ONLY:
            moved.update(node.output)
    _read_instead(model, name, _FLOATS)
    model.graph.node.insert(0, helper.make_node("Cast", [name], [_FLOATS], name=_FLOATS, to=TensorProto.FLOAT))
    del model.graph.value_info[:]


_MOVES_ONLY = frozenset({"Transpose", "Reshape", "Identity", "Slice", "Flatten", "Unsqueeze", "Squeeze"})


def _is_float(cast: onnx.NodeProto) -> bool:
    return any(given.name == "to" and given.i == TensorProto.FLOAT for given in cast.attribute)


def _read_instead(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
