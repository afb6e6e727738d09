"""Casts uint8 input to float at the front of a graph, the only way in which TensorRT takes bytes.

TensorRT knows uint8 as the type of an input that is cast at once; it transposes and measures floats. What a CPU's graph
dequantizes with scale 1 and zero point 0 is a cast, too: see `read_interleaved_pixels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from saccade.export.graph.graph_rewrites import constants_of, drop_unused_constants

_FLOATS = "images_as_float"


def cast_bytes_first(model: onnx.ModelProto, name: str = "images") -> None:
    """Moves the Cast in front of all nodes that read the uint8 input and drops later casts."""
    moved = {name}  # tensors that were bytes and become floats
    small = {key: value for key, value in constants_of(model).items() if value.size == 1}
    for node in list(model.graph.node):
        if not moved.intersection(node.input):
            continue
        if node.input[0] in moved and (_is_float_cast(node) or _only_casts(node, small)):
            _read_instead(model, node.output[0], node.input[0])
            model.graph.node.remove(node)
        elif node.op_type in _MOVES_ONLY:
            moved.update(node.output)
    _read_instead(model, name, _FLOATS)
    model.graph.node.insert(0, helper.make_node("Cast", [name], [_FLOATS], name=_FLOATS, to=TensorProto.FLOAT))
    del model.graph.value_info[:]
    drop_unused_constants(model)


_MOVES_ONLY = frozenset({"Transpose", "Reshape", "Identity", "Slice", "Flatten", "Unsqueeze", "Squeeze"})


def _is_float_cast(node: onnx.NodeProto) -> bool:
    to_float = any(given.name == "to" and given.i == TensorProto.FLOAT for given in node.attribute)
    return node.op_type == "Cast" and to_float


def _only_casts(node: onnx.NodeProto, small: Mapping[str, NDArray[Any]]) -> bool:
    """Recognises a DequantizeLinear that neither scales nor shifts."""
    if node.op_type != "DequantizeLinear" or node.input[1] not in small:
        return False
    zeros = node.input[2:]
    return small[node.input[1]].item() == 1.0 and all(name in small and small[name].item() == 0 for name in zeros)


def _read_instead(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
