"""Finds in a finished graph where a network's last map of the picture lies, from its outputs backwards.

It looks at operators and shapes alone, so that it finds the same in the graph of any library, in float and in int8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from saccade.export.extras.graph_view import GraphView
from saccade.export.extras.token_grid import CONVOLUTIONS, KEEP_PLACES, has_places, token_grid
from saccade.export.graph.graph_rewrites import attribute

_FEWEST_CELLS = 4
_MOST_CELLS = 128 * 128
# They pass on the values of their first input, one by one or in another form.
_SAME_VALUES = frozenset(
    {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
)
_PROBABILITIES = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})  # they leave the order of classes
_MEANS = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool"})
_POOLS = _MEANS | {"GlobalMaxPool", "ReduceMax", "ReduceSum", "MaxPool"}

Layout = Literal["channels first", "channels last", "tokens"]


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A tensor (n, c, h, w), (n, h, w, c) or (n, prefix + h * w, c)."""

    tensor: str
    layout: Layout
    channels: int
    rows: int
    columns: int
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class LinearHead:
    """The only layer between the mean over a map and the logits; `weight` None: the map's channels are the classes."""

    features: FeatureMap
    weight: str | None
    is_transposed: bool = False  # weight (classes, c), not (c, classes)


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """Attention weights (n, heads, queries, prefix + rows * columns), of whose queries the first one counts."""

    tensor: str
    rows: int
    columns: int
    prefix: int


def pooled_map(view: GraphView, output: str) -> FeatureMap | None:
    """The map whose mean over all places the outputs are made of."""
    for node in _way_back(view, output):
        if sum(side > 1 for side in view.shape(node.output[0])) > 1:  # no vector any more
            return None
        if node.op_type in _POOLS:
            return _pooled(view, node)
    return None


def linear_head(view: GraphView, logits: str) -> LinearHead | None:
    """The head of a classifier where nothing but one linear layer lies behind the mean over the last map."""
    weight: str | None = None
    is_transposed, layers = False, 0
    for node in _way_back(view, logits):
        if node.op_type in _MEANS and not (node.op_type == "AveragePool" and _is_map(view, node)):
            found = _pooled(view, node)
            if found is None or (weight is None and found.channels != _width(view, logits)):
                return None
            return LinearHead(found, weight, is_transposed)
        if node.op_type in ("Gemm", "MatMul") and len(view.shapes.get(node.input[1], ())) == 2:
            weight, layers = node.input[1], layers + 1
            is_transposed = bool(node.op_type == "Gemm" and attribute(node, "transB", 0))
        elif node.op_type == "Conv" and view.shapes.get(node.input[1], ())[2:] == (1, 1) and not _is_map(view, node):
            weight, is_transposed, layers = node.input[1], True, layers + 1
        elif layers == 0 and node.op_type in _PROBABILITIES:
            continue
        elif not (node.op_type in _SAME_VALUES or (node.op_type == "Add" and _adds_constant(view, node))):
            return None
        if layers > 1:
            return None
    return None


def finer_map(view: GraphView, features: FeatureMap) -> FeatureMap | None:
    """The last map with more places that a map is made of; None where only the picture has more, and for tokens."""
    if features.layout != "channels first":
        return None
    for node in reversed(view.ancestors([features.tensor])):
        name = node.output[0]
        shape = view.shape(name)
        has_more = len(shape) == 3 and shape[1] > features.rows and shape[2] > features.columns
        if has_more and view.is_float(name) and has_places(view, name):
            return _checked(FeatureMap(name, "channels first", *shape))
    return None


def class_maps(view: GraphView, outputs: Sequence[str], classes: int) -> list[FeatureMap]:
    """The score maps of a detector: what its last convolutions give for each class, one map per level."""
    found = [map_ for map_ in _last_maps(view, outputs, {"Conv"}) if map_.channels == classes]
    return found if len({(each.rows, each.columns) for each in found}) == len(found) else []


def last_maps(view: GraphView, outputs: Sequence[str]) -> list[FeatureMap]:
    """The last maps that convolutions have made, one per level; those with most channels where there are several."""
    by_size: dict[tuple[int, int], FeatureMap] = {}
    for found in _last_maps(view, outputs, KEEP_PLACES | CONVOLUTIONS):
        size = (found.rows, found.columns)
        if size not in by_size or found.channels > by_size[size].channels:
            by_size[size] = found
    return list(by_size.values())


def maps_before(view: GraphView, maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """The maps that the last convolutions read, where `maps` are their outputs: features, not yet boxes or scores."""
    found = []
    for each in maps:
        node = view.producers.get(each.tensor)
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            node = view.producers.get(node.input[0])
        before = _first_places(view, node.input[0]) if node is not None and node.op_type == "Conv" else None
        found.append(before or each)
    return found


def class_attention(view: GraphView, outputs: Sequence[str]) -> AttentionMap | None:
    """What the class token, or the query of attention pooling, looks at in the last layer of attention.

    None where that layer's tokens are no grid: what an earlier layer looks at is not what the answer is made of.
    """
    for node in reversed([node for node in view.ancestors(outputs) if node.op_type == "Softmax"]):
        name = node.output[0]
        shape = view.shapes.get(name, ())
        if len(shape) != 4 or shape[0] != 1 or not view.is_float(name) or shape[2] not in (1, shape[3]):
            continue
        grid = token_grid(view, name, shape[3])
        is_grid = grid is not None and grid.rows * grid.columns >= _FEWEST_CELLS and (shape[2] == 1 or grid.prefix)
        return AttentionMap(name, grid.rows, grid.columns, grid.prefix) if grid is not None and is_grid else None
    return None


def _width(view: GraphView, logits: str) -> int:
    return math.prod(view.shape(logits))


def _way_back(view: GraphView, output: str) -> Iterator[onnx.NodeProto]:
    """Nodes from an output backwards along the data, past constants."""
    node = view.producers.get(output)
    while node is not None:
        yield node
        data = [name for name in node.input if name and not view.is_constant(name)]
        node = view.producers.get(data[0]) if data else None


def _pooled(view: GraphView, node: onnx.NodeProto) -> FeatureMap | None:
    shape = view.shape(node.input[0])
    axes = (2, 3) if node.op_type.endswith("Pool") else view.axes(node)
    match len(shape), axes:
        case 3, (2, 3):
            return _checked(FeatureMap(node.input[0], "channels first", *shape))
        case 3, (1, 2):
            return _checked(FeatureMap(node.input[0], "channels last", shape[2], shape[0], shape[1]))
        case 2, (1,):
            grid = token_grid(view, node.input[0], shape[0])
            if grid is not None:
                tokens = FeatureMap(node.input[0], "tokens", shape[1], grid.rows, grid.columns, grid.prefix)
                return _checked(tokens)
    return None


def _checked(found: FeatureMap) -> FeatureMap | None:
    return found if _FEWEST_CELLS <= found.rows * found.columns <= _MOST_CELLS and found.channels > 1 else None


def _is_map(view: GraphView, node: onnx.NodeProto) -> bool:
    return math.prod(view.shape(node.output[0])[1:]) > 1


def _adds_constant(view: GraphView, node: onnx.NodeProto) -> bool:
    return any(view.is_constant(name) for name in node.input)


def _last_maps(view: GraphView, outputs: Sequence[str], operators: frozenset[str] | set[str]) -> Iterator[FeatureMap]:
    """Maps (n, c, h, w) made by such operators, the first that are met on each way back from the outputs."""
    pending, seen = list(outputs), set(outputs)
    while pending:
        name = pending.pop(0)
        node = view.producers.get(name)
        if node is None:
            continue
        shape = view.shape(name)
        if len(shape) == 3 and node.op_type in operators and view.is_float(name) and has_places(view, name):
            found = _checked(FeatureMap(name, "channels first", *shape))
            if found is not None:
                yield found
                continue
        for each in node.input:
            if each and each not in seen and not view.is_constant(each):
                seen.add(each)
                pending.append(each)


def _first_places(view: GraphView, name: str) -> FeatureMap | None:
    shape = view.shape(name)
    return _checked(FeatureMap(name, "channels first", *shape)) if len(shape) == 3 and view.is_float(name) else None
