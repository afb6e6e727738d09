"""Reads from a graph on which grid of rows and columns the tokens of a transformer lie; it never guesses one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from saccade.export.extras.graph_view import GraphView
from saccade.export.graph.graph_rewrites import attribute

_MOST_PREFIX = 8  # tokens before those of the picture: class, distillation, registers
# Behind a convolution they keep the places of a map.
# fmt: off
KEEP_PLACES = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus",
    "Gelu", "Erf", "Mish", "Pow", "Sqrt", "Exp", "Add", "Mul", "Sub", "Div", "Min", "Max", "Concat",
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "MaxPool", "AveragePool",
    "Resize", "Upsample", "Pad", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Dropout",
    "DepthToSpace", "SpaceToDepth", "Slice", "Split",
})
# fmt: on
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "QLinearConv", "ConvInteger"})
_TO_CHANNELS_LAST, _TO_CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Tokens in the order of rows, behind `prefix` others."""

    rows: int
    columns: int
    prefix: int


def token_grid(view: GraphView, name: str, tokens: int) -> TokenGrid | None:
    """The grid of the map of a convolution that was flattened to the tokens that a tensor is made of.

    None where no map has as many places, where several have and differ, and where tokens were added behind them.
    """
    nodes = view.ancestors([name])
    sizes = {
        size for node in nodes if (size := _flattened(view, node)) and 0 <= tokens - math.prod(size) <= _MOST_PREFIX
    }
    if len(sizes) != 1:
        return None
    ((rows, columns),) = sizes
    is_behind = all(_is_prefix(view, node, rows * columns) for node in nodes if node.op_type == "Concat")
    return TokenGrid(rows, columns, tokens - rows * columns) if is_behind else None


def has_places(view: GraphView, name: str) -> bool:
    """Whether a tensor comes from a convolution through operators that leave values where they are."""
    return _turns(view, name, may_turn=False) is not None


def _turns(view: GraphView, name: str, *, may_turn: bool) -> int | None:
    """How often channels were brought behind the places since the convolution; None where places were moved."""
    turns = 0
    for _ in range(64):
        node = view.producers.get(name)
        if node is None or len(view.shape(name)) != 3:
            return None
        if node.op_type in CONVOLUTIONS:
            return turns
        order = tuple(attribute(node, "perm", ())) if may_turn and node.op_type == "Transpose" else ()
        if order in (_TO_CHANNELS_LAST, _TO_CHANNELS_FIRST):
            turns += 1 if order == _TO_CHANNELS_LAST else -1
        elif node.op_type not in KEEP_PLACES:
            return None
        data = [each for each in node.input if each and not view.is_constant(each) and len(view.shape(each)) == 3]
        if not data:
            return None
        name = max(data, key=lambda each: math.prod(view.shape(each)[1:]))
    return None


def _flattened(view: GraphView, node: onnx.NodeProto) -> tuple[int, int] | None:
    """Rows and columns of a convolution's map brought to (n, c, places) or (n, places, c), or so per head."""
    if node.op_type != "Reshape":
        return None
    before, after = view.shape(node.input[0]), view.shape(node.output[0])
    if len(before) != 3 or len(after) not in (2, 3):
        return None
    match _turns(view, node.input[0], may_turn=True):
        case 0 if after[-2:] == (before[0], before[1] * before[2]):
            return before[1], before[2]
        case 1 if after[-2:] == (before[0] * before[1], before[2]):
            return before[0], before[1]
    return None


def _is_prefix(view: GraphView, node: onnx.NodeProto, places: int) -> bool:
    """Whether a node that joins tokens leaves those of the picture at the end."""
    shape = view.shape(node.output[0])
    if attribute(node, "axis", 0) not in (1, -2) or len(shape) != 2 or not places < shape[0] <= places + _MOST_PREFIX:
        return True
    return view.shape(node.input[-1])[:1] >= (places,)
