"""Chooses where Q/DQ pairs go for TensorRT; a pure decision that gives a reason for every layer that stays float.

TensorRT pulls a Quantize back through operators that only copy and fuses Conv, Add and Relu when the Add's other input
is quantized. So pairs stand where weighted layers and residual sums read, and nowhere else. The rules are those of
NVIDIA's guide on explicit quantization and of the ONNX part of its Model Optimizer; the code is new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import onnx

from saccade.export.graph.graph_rewrites import attribute, tensor_shapes
from saccade.export.graph.onnx_graph import WEIGHTED_OPS, weighted_part
from saccade.export.graph.rewrites.patches_to_image import NODE_PREFIX
from saccade.export.precision.quantization.qdq import float_tensors

NOTHING: Mapping[str, str] = {}
_SMALLEST_SIDE = 16  # channels of a tensor core's int8 tile; narrower layers gain nothing and lose accuracy
_CONVOLUTION_RANKS = (4, 5)
_MOVING_OPS = frozenset(
    {"Reshape", "Transpose", "Slice", "Split", "Flatten", "Pad", "MaxPool", "Squeeze", "Unsqueeze", "Identity"}
)


@dataclass(frozen=True, slots=True)
class Edge:
    """An activation input of a node that passes a Q/DQ pair."""

    tensor: str
    node: str


@dataclass(frozen=True, slots=True)
class QdqPlacement:
    """The nodes and tensors that are quantized, and why the others are not."""

    nodes: tuple[str, ...]  # weighted nodes whose weights and activations are quantized, in graph order
    edges: tuple[Edge, ...]
    groups: tuple[tuple[str, ...], ...]  # quantized activations that share one scale; each is in one group
    reasons: Mapping[str, str]  # reasons by weighted node that stays float

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations with a Q/DQ pair."""
        return tuple(dict.fromkeys(edge.tensor for edge in self.edges))


def placement_for_tensorrt(
    model: onnx.ModelProto, keep_float: tuple[str, ...] = (), taken_out: Mapping[str, str] = NOTHING
) -> QdqPlacement:
    """Places pairs in front of wide weighted layers and of the residual inputs of sums that fuse with one.

    `keep_float` holds name prefixes from the recipe, `taken_out` the nodes that a measurement keeps float, with
    reasons.
    """
    shapes = tensor_shapes(model)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    floats = float_tensors(model) - set(weights)
    reasons: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in weighted_part(model):
        if node.op_type not in WEIGHTED_OPS:
            continue
        reason = _reason_for_float(node, weights, shapes, floats)
        if node.name.startswith(NODE_PREFIX):
            reason = "it only copies"
        elif node.name.startswith(keep_float):
            reason = "kept float by the recipe"
        elif node.name in taken_out:
            reason = taken_out[node.name]
        if reason:
            reasons[node.name] = reason
        else:
            nodes.append(node)
    edges = [Edge(node.input[0], node.name) for node in nodes]
    edges += _residual_edges(model, {node.name for node in nodes}, floats, shapes)
    quantized = tuple(dict.fromkeys(edge.tensor for edge in edges))
    return QdqPlacement(
        tuple(node.name for node in nodes), tuple(edges), _groups(model.graph.node, quantized, floats), reasons
    )


def weight_axis(node: onnx.NodeProto) -> int | None:
    """Returns the output channels' axis of a node's weight; None when output channels do not lie along one axis."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1 if attribute(node, "group", 1) == 1 else None
        case "Gemm":
            return 0 if attribute(node, "transB", 0) else 1
        case _:
            return 1


def _reason_for_float(
    node: onnx.NodeProto,
    weights: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int | str, ...]],
    floats: Collection[str],
) -> str:
    """Returns why a node stays float; empty for a node that gains from low precision."""
    shape = weights.get(node.input[1])
    if shape is None or node.input[0] not in floats:
        return "its weights are not constant"
    if node.op_type in ("Conv", "ConvTranspose"):
        return _reason_for_convolution(node, shape)
    if len(shape) != 2 or attribute(node, "transA", 0):
        return f"its weights have shape {list(shape)}, a plain product has two sides"
    inner, outer = reversed(shape) if attribute(node, "transB", 0) else shape
    if min(inner, outer) < _SMALLEST_SIDE:
        return f"{inner} x {outer} weights, a side below {_SMALLEST_SIDE}"
    rows = shapes.get(node.input[0], ())[:-1]
    if rows and all(side == 1 for side in rows):
        return "one row times a matrix: reading the weights is all it does"
    return ""


def _reason_for_convolution(node: onnx.NodeProto, shape: tuple[int, ...]) -> str:
    if len(shape) not in _CONVOLUTION_RANKS:
        return f"its weights have {len(shape)} dimensions"
    group = int(attribute(node, "group", 1))
    per_group = shape[1] if node.op_type == "Conv" else shape[0] // group
    is_depthwise = group > 1 and per_group == 1
    channels = group if is_depthwise else per_group
    if channels < _SMALLEST_SIDE:
        return f"{channels} input channels, fewer than {_SMALLEST_SIDE}"
    return ""


def _residual_edges(
    model: onnx.ModelProto,
    quantized: Collection[str],
    floats: Collection[str],
    shapes: Mapping[str, tuple[int | str, ...]],
) -> list[Edge]:
    """Finds the other input of each sum that a quantized convolution computes together with its own result.

    When two convolutions feed a sum, the later one computes it, and the earlier one's result is the residual.
    """
    order = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    convolved = {
        node.output[0]
        for node in model.graph.node
        if node.name in quantized and node.op_type in ("Conv", "ConvTranspose") and readers.get(node.output[0]) == 1
    }
    edges: list[Edge] = []
    for node in model.graph.node:
        if (
            node.op_type != "Add"
            or not convolved.intersection(node.input)
            or not all(name in floats for name in node.input)
        ):
            continue
        if shapes.get(node.input[0]) != shapes.get(node.input[1]):
            continue  # a sum that broadcasts is a bias, not a residual
        fused = max(convolved.intersection(node.input), key=lambda name: order[name])
        edges.extend(Edge(name, node.name) for name in node.input if name != fused)
    return edges


def _groups(
    nodes: Iterable[onnx.NodeProto], quantized: tuple[str, ...], floats: Collection[str]
) -> tuple[tuple[str, ...], ...]:
    """Groups tensors that Concat or copying operators join: they need one scale, or numbers are rounded twice."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.get(name, name) != name:
            name = leader[name]
        return name

    for node in nodes:
        joined = node.input if node.op_type == "Concat" else node.input[:1] if _only_moves(node) else ()
        members = [name for name in (*joined, *(node.output if joined else ())) if name in floats]
        for member in members[1:]:
            leader[find(member)] = find(members[0])
    groups: dict[str, list[str]] = {}
    for name in quantized:
        groups.setdefault(find(name), []).append(name)
    return tuple(tuple(group) for group in groups.values())


def _only_moves(node: onnx.NodeProto) -> bool:
    return node.op_type in _MOVING_OPS or (
        node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"nearest"
    )
