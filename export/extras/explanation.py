"""Says how a network's graph shows where it looked: one map per image, computed from what the network computes anyway.

Methods, the best that a graph allows:
- class activation: the last map, weighted as the answered class weighs its mean (Zhou et al. 2016, CAM; it equals
  Grad-CAM for such heads). For detectors the highest class score at each place, of all levels.
- refined class activation: the same, enlarged onto the last map with more places, times the strength of that one
  there: the class says which object, the finer map where it is (as Guided Grad-CAM, Selvaraju et al. 2017, multiplies
  a map of the class by a finer one of none, which needs gradients there).
- class attention: what the class token, or the query of attention pooling, looks at in the last layer, mean of heads.
- principal component: the first one of the last map, over its places (Muhammad and Yeasin 2020, Eigen-CAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from saccade.export.errors import GraphError
from saccade.export.extras.branch_nodes import BranchNodes
from saccade.export.extras.depth import is_attended_later, is_deep
from saccade.export.extras.feature_maps import (
    AttentionMap,
    FeatureMap,
    LinearHead,
    class_attention,
    class_maps,
    finer_map,
    last_maps,
    linear_head,
    maps_before,
    pooled_map,
)
from saccade.export.extras.graph_view import GraphView
from saccade.export.extras.marks import ExtraBranch, NoExtra
from saccade.export.graph.onnx_graph import network_outputs
from saccade.export.steps import StepContext
from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.models.contract.specs import Task, TensorSpec

_OUTPUT = "explanation"
_ITERATIONS = 8  # of the power method; the second component fades by the square of the ratio in each
_LEAST = 1e-30


def explanation_branch(model: onnx.ModelProto, context: StepContext) -> ExtraBranch:
    """The map of the best method. Raises NoExtra for networks without a map, and those of masks or pictures."""
    task = context.recipe.task
    if task.task is Task.SEGMENT:
        raise NoExtra("a segmenter's mask says itself where it looked")
    if task.task is Task.IMAGE:
        raise NoExtra("a network whose answer is a picture looks everywhere")
    return explained(model, task.task, len(context.recipe.labels))


def explained(model: onnx.ModelProto, task: Task, classes: int) -> ExtraBranch:
    """As `explanation_branch`, for a graph alone."""
    view, nodes = GraphView(model), BranchNodes(ExtraKind.EXPLAIN.value, _opset(model))
    try:
        outputs = network_outputs(model)
    except GraphError:
        outputs = tuple(output.name for output in model.graph.output)
    if task.has_boxes:
        return _of_detector(view, nodes, outputs, classes)
    head = linear_head(view, outputs[0]) if task is Task.CLASSIFY else None
    if head is not None and (head.features.layout != "tokens" or not head.features.prefix):
        heat, finer = class_activation(view, nodes, head), finer_map(view, head.features)
        if finer is None:
            return map_branch(nodes, heat, head.features, "class activation")
        return map_branch(nodes, refined(view, nodes, heat, head.features, finer), finer, "refined class activation")
    features = pooled_map(view, outputs[0])
    attention = class_attention(view, outputs[:1]) if features is None else None
    if attention is not None:
        return _attention(view, nodes, attention)
    last = features if features is not None else _last_map(view, outputs[:1])
    if last is None:
        raise NoExtra(
            "its graph has no map of the picture behind which only the head lies, and no class token among tokens "
            "whose rows and columns a convolution gives"
        )
    return map_branch(nodes, principal_component(view, nodes, last), last, "principal component")


def _last_map(view: GraphView, outputs: Sequence[str]) -> FeatureMap | None:
    """The last map of a convolution, unless most of the network follows it."""
    for found in last_maps(view, outputs)[:1]:
        if is_deep(view, outputs, [found]) and not is_attended_later(view, outputs, found):
            return found
    return None


def _opset(model: onnx.ModelProto) -> int:
    return next(int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx"))


def map_branch(nodes: BranchNodes, heat: str, size: FeatureMap, method: str) -> ExtraBranch:
    """The branch of a map (n, 1, cells) or alike, brought to (n, rows, columns) without what is below zero."""
    positive = nodes.add("Relu", heat)
    result = nodes.add("Reshape", positive, nodes.constant("grid", np.array([-1, size.rows, size.columns], np.int64)))
    shape = (size.rows, size.columns)
    extra = ExtraOutput(
        kind=ExtraKind.EXPLAIN, output=TensorSpec(name=_OUTPUT, dtype="float32", shape=shape), method=method
    )
    return ExtraBranch(extra, nodes.nodes, result, nodes.constants)


def class_activation(view: GraphView, nodes: BranchNodes, head: LinearHead) -> str:
    """(n, 1, cells): the map's channels, weighted by the row of the class that is answered first."""
    by_channel = _cells(view, nodes, head.features)
    best = nodes.add("Gather", "class_ids", nodes.constant("first", np.array(0, np.int64)), axis=1)  # (n,)
    if head.weight is None:
        column = nodes.add("Reshape", best, nodes.constant("column", np.array([-1, 1], np.int64)))
        chosen = nodes.add("Cast", column, to=onnx.TensorProto.INT64)
        return nodes.add("GatherND", by_channel, chosen, batch_dims=1)
    rows = _weights_of(view, nodes, head, best)
    row = nodes.add("Reshape", rows, nodes.constant("row", np.array([-1, 1, head.features.channels], np.int64)))
    return nodes.add("MatMul", row, by_channel)


def _weights_of(view: GraphView, nodes: BranchNodes, head: LinearHead, best: str) -> str:
    """(n, c), float: a row per image. Of int8 weights the rows are chosen first, since they are few."""
    assert head.weight is not None
    axis = 0 if head.is_transposed else 1
    name, node = head.weight, view.producers.get(head.weight)
    while node is not None and node.op_type == "Transpose":
        axis, name = 1 - axis, node.input[0]
        node = view.producers.get(name)
    if node is None or node.op_type != "DequantizeLinear":
        rows = nodes.add("Gather", name, best, axis=axis)
        return rows if axis == 0 else nodes.add("Transpose", rows, perm=[1, 0])
    rows = nodes.add("Cast", nodes.add("Gather", node.input[0], best, axis=axis), to=onnx.TensorProto.FLOAT)
    rows = rows if axis == 0 else nodes.add("Transpose", rows, perm=[1, 0])
    if len(node.input) > 2 and node.input[2]:
        zero = nodes.add("Cast", _per_row(view, nodes, node.input[2], best), to=onnx.TensorProto.FLOAT)
        rows = nodes.add("Sub", rows, zero)
    return nodes.add("Mul", rows, _per_row(view, nodes, node.input[1], best))


def _per_row(view: GraphView, nodes: BranchNodes, name: str, best: str) -> str:
    """A scale or zero point of each chosen row, (n, 1), or the one of all."""
    if len(view.shapes.get(name, ())) == 0 or view.shapes[name] == (1,):
        return name
    column = nodes.constant("column", np.array([-1, 1], np.int64))
    return nodes.add("Reshape", nodes.add("Gather", name, best, axis=0), column)


def refined(view: GraphView, nodes: BranchNodes, heat: str, size: FeatureMap, finer: FeatureMap) -> str:
    """(n, 1, h, w) on the finer map's grid: `heat` (n, 1, cells) times the squared length of the finer features."""
    coarse = nodes.constant("coarse", np.array([-1, 1, size.rows, size.columns], np.int64))
    enlarged = _enlarged(nodes, nodes.add("Reshape", heat, coarse), size, finer)
    return nodes.add("Mul", enlarged, nodes.squares(nodes.float_side(view, finer.tensor), (1,), keeps=True))


def _of_detector(view: GraphView, nodes: BranchNodes, outputs: Sequence[str], classes: int) -> ExtraBranch:
    scores = class_maps(view, outputs, classes)
    if scores:
        heats = [
            nodes.add("Sigmoid", nodes.maximum(nodes.float_side(view, each.tensor), (1,), keeps=True))
            for each in scores
        ]
        return _levels(nodes, scores, heats, "class activation")
    last = last_maps(view, outputs)
    if not last or not is_deep(view, outputs, last):
        raise NoExtra("its graph has no map of the picture in front of its boxes, or one that most layers follow")
    features = maps_before(view, last)
    heats = []
    for each in features:
        heat = _scaled(nodes, nodes.add("Relu", principal_component(view, nodes, each)))
        shape = nodes.constant(
            f"level_{each.rows}_{each.columns}", np.array([-1, 1, each.rows, each.columns], np.int64)
        )
        heats.append(nodes.add("Reshape", heat, shape))
    return _levels(nodes, features, heats, "principal component")


def _levels(nodes: BranchNodes, maps: Sequence[FeatureMap], heats: Sequence[str], method: str) -> ExtraBranch:
    """All levels' maps (n, 1, h, w) on the finest one's grid; the hottest counts."""
    finest = max(maps, key=lambda each: each.rows * each.columns)
    on_grid = []
    for each, heat in zip(maps, heats, strict=True):
        is_finest = (each.rows, each.columns) == (finest.rows, finest.columns)
        on_grid.append(heat if is_finest else _enlarged(nodes, heat, each, finest))
    hottest = nodes.add("Max", *on_grid) if len(on_grid) > 1 else on_grid[0]
    return map_branch(nodes, hottest, finest, method)


def _enlarged(nodes: BranchNodes, heat: str, size: FeatureMap, finer: FeatureMap) -> str:
    """A map (n, 1, h, w) on the places of a finer one."""
    # A little more than the ratio, because runtimes round the size down.
    ratios = ((finer.rows + 0.01) / size.rows, (finer.columns + 0.01) / size.columns)
    scales = nodes.constant(f"scales_{size.rows}_{size.columns}", np.array([1, 1, *ratios], np.float32))
    return nodes.add("Resize", heat, "", scales, mode="linear")


def _attention(view: GraphView, nodes: BranchNodes, found: AttentionMap) -> ExtraBranch:
    weights = nodes.float_side(view, found.tensor)
    first = nodes.add("Gather", weights, nodes.constant("first", np.array(0, np.int64)), axis=2)  # (n, heads, tokens)
    mean = nodes.mean(first, (1,))
    ends = (np.array([found.prefix], np.int64), np.array([found.prefix + found.rows * found.columns], np.int64))
    places = nodes.add(
        "Slice",
        mean,
        nodes.constant("from", ends[0]),
        nodes.constant("to", ends[1]),
        nodes.constant("axis_1", np.array([1], np.int64)),
    )
    size = FeatureMap(found.tensor, "tokens", 1, found.rows, found.columns, found.prefix)
    return map_branch(nodes, places, size, "class attention")


def _cells(view: GraphView, nodes: BranchNodes, features: FeatureMap) -> str:
    """(n, c, cells): the map with its places in one axis."""
    tensor = nodes.float_side(view, features.tensor)
    cells = features.rows * features.columns
    if features.layout == "tokens" and features.prefix:
        tensor = nodes.add(
            "Slice",
            tensor,
            nodes.constant("from", np.array([features.prefix], np.int64)),
            nodes.constant("to", np.array([features.prefix + cells], np.int64)),
            nodes.constant("axis_1", np.array([1], np.int64)),
        )
    if features.layout == "channels first":
        shape = nodes.constant(f"cells_{features.channels}_{cells}", np.array([-1, features.channels, cells], np.int64))
        return nodes.add("Reshape", tensor, shape)
    shape = nodes.constant(f"places_{features.channels}_{cells}", np.array([-1, cells, features.channels], np.int64))
    return nodes.add("Transpose", nodes.add("Reshape", tensor, shape), perm=[0, 2, 1])


def principal_component(view: GraphView, nodes: BranchNodes, features: FeatureMap) -> str:
    """(n, 1, cells): how far each place lies along the first principal component, positive where the map is strong.

    The power method starts at the strength of each place, so that runs are alike.
    """
    by_channel = _scaled(nodes, _cells(view, nodes, features))
    centred = nodes.add("Sub", by_channel, nodes.mean(by_channel, (2,), keeps=True))
    by_place = nodes.add("Transpose", centred, perm=[0, 2, 1])
    strength = nodes.mean(nodes.add("Mul", by_channel, by_channel), (1,), keeps=True)  # (n, 1, cells)
    start = nodes.add("Sub", strength, nodes.mean(strength, (2,), keeps=True))
    places = start
    for _ in range(_ITERATIONS):
        places = _scaled(nodes, nodes.add("MatMul", nodes.add("MatMul", places, by_place), centred))
    agreement = nodes.mean(nodes.add("Mul", places, start), (2,), keeps=True)
    return nodes.add("Mul", places, nodes.add("Sign", agreement))


def _scaled(nodes: BranchNodes, tensor: str) -> str:
    """(n, a, b) with its largest size at 1 in each image, so that no scale of a network vanishes or overflows."""
    largest = nodes.maximum(nodes.add("Abs", tensor), (1, 2), keeps=True)
    return nodes.add("Div", tensor, nodes.add("Add", largest, nodes.constant("least", _least())))


def _least() -> NDArray[Any]:
    """Keeps a map without any difference from being divided by zero."""
    return np.array(_LEAST, np.float32)
