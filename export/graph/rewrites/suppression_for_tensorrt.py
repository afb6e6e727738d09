"""Turns NonMaxSuppression into rounds of matrix products that give the same flags, for TensorRT for RTX.

TensorRT for RTX parses NonMaxSuppression and has no kernel for it. A box is kept when its score counts and no better
box of its class that is kept overlaps it. "Better" is a strict order, so exactly one set of boxes satisfies this, and
evaluating all boxes again until no flag changes reaches it: after t rounds every box is right whose chains of better
overlapping boxes are at most t long. The data decides how many rounds run, at most one per box.

Overlaps are one (n, k, k) matrix of half floats, 64 MB for 8 images of 2000 boxes, whatever the number of classes,
because each row has one class. Half floats hold 0 and 1 exactly, a sum of ones never becomes 0, and Turing multiplies
no other type here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, numpy_helper, parser

from saccade.export.graph.graph_rewrites import attribute, constants_of, tensor_shapes

_LIMITS = 3  # inputs behind boxes and scores: most boxes, overlap threshold, score threshold
_OPSET = 18  # since this opset reductions take axes as an input, and Split counts its outputs

# The expression that export/convert/suppression.py makes from the indices `found`.
_PLACES = "Concat[axis=1](Slice(found, 0, 1, 1), Slice(found, 2, 3, 1))"
_FLAGS = f"Greater(ScatterND(Expand(0.0, Shape[end=2](boxes)), {_PLACES}, Expand(1.0, Shape[end=1]({_PLACES}))), 0.5)"
_FLAGS_DEPTH = 6  # operators on the longest way from the flags to `found`

# Boxes run down the rows and, transposed, across the columns: a box in a row may be suppressed by one in a column.
# The overlap is computed as ONNX Runtime does it. Where areas are zero it is 0 / 0, which is above no threshold.
_ROUNDS = """
suppression (float[n,k,4] boxes, float[n,c,k] scores, int64[n,1,k] classes, float above, float floor)
    => (bool[n,k] keep)
{
    x, y, x_other, y_other = Split <axis = 2, num_outputs = 4> (boxes)
    left = Min (x, x_other)
    right = Max (x, x_other)
    top = Min (y, y_other)
    bottom = Max (y, y_other)
    left_across = Transpose <perm = [0, 2, 1]> (left)
    right_across = Transpose <perm = [0, 2, 1]> (right)
    top_across = Transpose <perm = [0, 2, 1]> (top)
    bottom_across = Transpose <perm = [0, 2, 1]> (bottom)
    shared_left = Max (left, left_across)
    shared_right = Min (right, right_across)
    shared_top = Max (top, top_across)
    shared_bottom = Min (bottom, bottom_across)
    shared_width = Sub (shared_right, shared_left)
    shared_height = Sub (shared_bottom, shared_top)
    width_or_none = Relu (shared_width)
    height_or_none = Relu (shared_height)
    shared = Mul (width_or_none, height_or_none)
    width = Sub (right, left)
    height = Sub (bottom, top)
    area = Mul (width, height)
    area_across = Transpose <perm = [0, 2, 1]> (area)
    both = Add (area, area_across)
    joined = Sub (both, shared)
    overlap = Div (shared, joined)
    overlaps = Greater (overlap, above)

    class_axis = Constant <value_ints = [1]> ()
    score_across = ReduceMax <keepdims = 1> (scores, class_axis)
    score = Transpose <perm = [0, 2, 1]> (score_across)
    counts = Greater (score, floor)
    is_higher = Greater (score_across, score)
    is_equal = Equal (score_across, score)
    position_across = Transpose <perm = [0, 2, 1]> (position)
    is_earlier = Less (position_across, position)
    wins_tie = And (is_equal, is_earlier)
    is_better = Or (is_higher, wins_tie)
    class = Transpose <perm = [0, 2, 1]> (classes)
    is_same_class = Equal (class, classes)
    is_rival = And (is_better, is_same_class)
    may_suppress = And (overlaps, is_rival)
    matrix = Cast <to = 10> (may_suppress)

    yes = Constant <value = bool {1}> ()
    kept = Loop (most_rounds, yes, counts) <body = round (int64 number, bool going, bool[?,?,1] before)
        => (bool changes, bool[?,?,1] after)
    {
        standing = Cast <to = 10> (before)
        rivals = MatMul (matrix, standing)
        is_suppressed = Cast <to = 9> (rivals)
        is_free = Not (is_suppressed)
        after = And (is_free, counts)
        is_changed = Xor (after, before)
        changed = Cast <to = 1> (is_changed)
        any_changed = ReduceMax <keepdims = 0> (changed)
        changes = Cast <to = 9> (any_changed)
    }>
    last_axis = Constant <value_ints = [2]> ()
    keep = Squeeze (kept, last_axis)
}
"""


def use_rounds_for_suppression(model: onnx.ModelProto) -> int:
    """Rewrites each NonMaxSuppression of `export/convert/suppression.py` with one class per row; returns how many."""
    operators = [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]
    if not operators or model.opset_import[0].version < _OPSET:
        return 0
    facts = _TensorFacts(constants_of(model), tensor_shapes(model), _producers(model))
    candidates = [node for node in model.graph.node if node.op_type == "Greater"]
    found = [pattern for pattern in (_pattern(facts, node, candidates) for node in operators) if pattern is not None]
    for pattern in found:
        _replace(model, pattern)
    return len(found)


@dataclass(frozen=True, slots=True)
class _TensorFacts:
    """The graph before the rewrite, indexed by tensor."""

    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int | str, ...]]
    producers: dict[str, onnx.NodeProto]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One suppression, from boxes and scores to flags."""

    operator: onnx.NodeProto
    flags: onnx.NodeProto
    class_ids: str  # (n, 1, k)
    rows: int  # k


def _pattern(facts: _TensorFacts, operator: onnx.NodeProto, candidates: Sequence[onnx.NodeProto]) -> _Pattern | None:
    """Recognises `keep_per_class` of a known number of rows; None for any other suppression."""
    limits = [facts.constants.get(name) for name in operator.input[2:]]
    if len(limits) != _LIMITS or any(limit is None for limit in limits) or attribute(operator, "center_point_box", 0):
        return None
    class_ids, rows = _class_ids(facts, operator), _rows(facts, operator)
    flags = next((node for node in candidates if _is_flags(facts, operator, node)), None)
    return None if class_ids is None or rows is None or flags is None else _Pattern(operator, flags, class_ids, rows)


def _rows(facts: _TensorFacts, operator: onnx.NodeProto) -> int | None:
    """Returns the number of boxes where it is known and all of them may be kept."""
    shape = facts.shapes.get(operator.input[1], ())
    rows = shape[2] if len(shape) == 3 else None
    return rows if isinstance(rows, int) and 0 < rows <= int(facts.constants[operator.input[2]].item()) else None


def _class_ids(facts: _TensorFacts, operator: onnx.NodeProto) -> str | None:
    """Returns the tensor (n, 1, k) with each row's only class; None when a row may have several."""
    scores = facts.producers.get(operator.input[1])
    equal = None if scores is None or scores.op_type != "Where" else facts.producers.get(scores.input[0])
    if scores is None or equal is None or equal.op_type != "Equal":
        return None
    class_ids, classes = equal.input[0], facts.constants.get(equal.input[1], np.zeros(0))
    outside = facts.constants.get(scores.input[2])
    if outside is None or not np.all(outside <= facts.constants[operator.input[4]]):
        return None
    is_row = facts.shapes.get(class_ids, ())[1:2] == (1,)
    is_column = classes.shape == (1, np.unique(classes).size, 1)
    return class_ids if is_row and is_column else None


def _is_flags(facts: _TensorFacts, operator: onnx.NodeProto, node: onnx.NodeProto) -> bool:
    names = {operator.output[0]: "found", operator.input[0]: "boxes"}
    return _expression(node.output[0], facts, names, _FLAGS_DEPTH) == _FLAGS


def _expression(tensor: str, facts: _TensorFacts, names: dict[str, str], depth: int) -> str:
    """Writes how a tensor is computed from named tensors and single numbers; integer attributes appear unless zero."""
    if tensor in names:
        return names[tensor]
    if tensor in facts.constants and facts.constants[tensor].size == 1:
        return str(facts.constants[tensor].item())
    if tensor not in facts.producers or depth == 0:
        return tensor
    node = facts.producers[tensor]
    integers = [f"{given.name}={given.i}" for given in node.attribute if given.type == given.INT and given.i]
    settings = f"[{', '.join(integers)}]" if integers else ""
    sources = [_expression(name, facts, names, depth - 1) for name in node.input]
    return f"{node.op_type}{settings}({', '.join(sources)})"


def _replace(model: onnx.ModelProto, pattern: _Pattern) -> None:
    position = list(model.graph.node).index(pattern.flags)
    rounds = _rounds(pattern)
    model.graph.initializer.extend(rounds.initializer)
    for node in reversed(rounds.node):
        model.graph.node.insert(position, node)
    _remove_with_sources(model, pattern.flags)


def _rounds(pattern: _Pattern) -> onnx.GraphProto:
    """Returns `_ROUNDS` between the pattern's tensors, with all other names prefixed by the operator's."""
    graph = parser.parse_graph(_ROUNDS)
    positions = np.arange(pattern.rows, dtype=np.int64).reshape(1, -1, 1)
    graph.initializer.append(numpy_helper.from_array(positions, "position"))
    graph.initializer.append(numpy_helper.from_array(np.array(pattern.rows, np.int64), "most_rounds"))
    for node in graph.node:
        node.name = node.output[0]
    boxes, scores, _, above, floor = pattern.operator.input
    ends = {"boxes": boxes, "scores": scores, "classes": pattern.class_ids, "above": above, "floor": floor}
    ends["keep"] = pattern.flags.output[0]
    prefix = f"{pattern.operator.name}_"
    return compose.add_prefix_graph(graph, prefix, rename_inputs=False, rename_outputs=False, name_map=ends)


def _remove_with_sources(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Removes a node and the nodes that only it read."""
    model.graph.node.remove(node)
    for name in dict.fromkeys(node.input):
        source = _producers(model).get(name)
        if source is not None and not any(name in other.input for other in model.graph.node):
            _remove_with_sources(model, source)


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}
