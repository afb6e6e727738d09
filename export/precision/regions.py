"""Decides which nodes leave fp32; a pure function of graph and calibrated ranges that gives a reason for every other.

Low precision pays where weights are multiplied; every other node leaves fp32 only where that is harmless. Sums over
many elements, exponentials, normalisation, box arithmetic and the answer head stay.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from saccade.export.graph.graph_rewrites import attribute, constants_of
from saccade.export.graph.onnx_graph import WEIGHTED_OPS, network_nodes, weighted_part
from saccade.export.precision.concrete_shapes import concrete_shapes
from saccade.export.precision.effective_precision import element_types, layer_precisions
from saccade.export.precision.float_formats import FloatFormat
from saccade.service.repository.layer_precision import MOVING_OPS

# calibrated extremes must stay this factor inside the type's range, because tests reach larger values
RANGE_MARGIN = 4.0
MANY_ELEMENTS = 256  # a running sum of n equal numbers loses log2(n) of fp16's 11 bits
SMALLEST_ISLAND = 1e-3  # share of all FLOPs; below it the casts around cost more than the product saves
_ROUNDING_MARGIN = 4.0  # constants may lose this many times what rounding of normal numbers loses

_ARITHMETIC_OPS = frozenset(
    {"Abs", "Add", "Clip", "Div", "Einsum", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max"}
    | {"Min", "Mish", "Mul", "Neg", "PRelu", "Relu", "Resize", "Selu", "Sigmoid", "Sub", "Sum", "Tanh", "Where"}
)
_POOLING_OPS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum"})
_LOWERABLE_OPS = WEIGHTED_OPS | _ARITHMETIC_OPS | _POOLING_OPS | MOVING_OPS | {"Pad"}
_NORMALISATIONS = frozenset(
    {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization"}
    | {"LRN", "MeanVarianceNormalization", "RMSNormalization"}
)
_EXPONENTIALS = frozenset({"Exp", "Log", "LogSoftmax", "Softmax", "Hardmax", "Softplus", "ReduceLogSumExp"})
_MOMENTS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool"})
_ROOTS = frozenset({"Sqrt", "Reciprocal"})
_NORMALISING_OPS = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Max", "Clip", "Expand"})
TAKES_ANY_TYPE = frozenset({"Cast", "Shape", "Size"})  # these read values of any type
_LONGEST_CHAIN = 8  # most nodes between a moment and its root


@dataclass(frozen=True, slots=True)
class Regions:
    """The nodes that compute in the narrow type, and why the other float nodes do not."""

    narrow: frozenset[str]
    kept_fp32: Mapping[str, str] = field(default_factory=dict)  # reason by node name

    def reason_counts(self) -> dict[str, int]:
        return dict(Counter(self.kept_fp32.values()).most_common())


def regions_by_operator(model: onnx.ModelProto, target: FloatFormat) -> Regions:
    """Returns the regions that operators, constants and place in the network allow, before ranges are known."""
    facts = _RegionRules(model)
    kept = {node.name: reason for node in facts.float_nodes if (reason := facts.reason(node, target)) is not None}
    return Regions(frozenset(node.name for node in facts.float_nodes if node.name not in kept), kept)


def ranged_tensors(model: onnx.ModelProto, regions: Regions) -> list[str]:
    """Returns the activations that nodes of the narrow region read or write: their ranges decide."""
    types = element_types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    return list(
        dict.fromkeys(
            name
            for node in model.graph.node
            if node.name in regions.narrow
            for name in (*node.input, *node.output)
            if types.get(name) == TensorProto.FLOAT and name not in constants
        )
    )


def regions_within_range(
    model: onnx.ModelProto, regions: Regions, extremes: Mapping[str, float], target: FloatFormat
) -> Regions:
    """Drops nodes that leave the type's range, and islands too small to pay for their casts.

    `extremes` holds the largest absolute value of each of `ranged_tensors`.
    """
    kept = dict(regions.kept_fp32)
    for node in model.graph.node:
        if node.name in regions.narrow:
            seen = [extremes[name] for name in (*node.input, *node.output) if name in extremes]
            reason = _range_reason(seen, target)
            if reason is not None:
                kept[node.name] = reason
    narrow = regions.narrow - set(kept)
    for name in _moves_of_fp32(model, narrow):
        kept[name] = "only moves fp32 values"
    for name in _small_islands(model, narrow - set(kept)):
        kept[name] = f"an island of less than {SMALLEST_ISLAND:g} of the FLOPs between fp32 nodes"
    return Regions(narrow - set(kept), kept)


def _range_reason(extremes: Iterable[float], target: FloatFormat) -> str | None:
    values = list(extremes)
    if not all(math.isfinite(value) for value in values):
        return "calibrated values are not finite"
    if max(values, default=0.0) > target.largest / RANGE_MARGIN:
        return f"calibrated values exceed a quarter of {target.precision}'s range"
    if any(0.0 < value < target.smallest_normal * RANGE_MARGIN for value in values):
        return f"calibrated values are too small for {target.precision}"
    return None


class _RegionRules:
    """Facts about one graph that the rules read."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._types = element_types(model)
        self._shapes = concrete_shapes(model)
        self._constants = constants_of(model)
        self._opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        self._network = {node.name for node in network_nodes(model)}
        self._weighted = {node.name for node in weighted_part(model)}
        self._normalising = normalisation_chains(model.graph.node)
        self.float_nodes: list[onnx.NodeProto] = [
            node for node in model.graph.node if node.op_type not in TAKES_ANY_TYPE and self._is_float(node)
        ]

    def reason(self, node: onnx.NodeProto, target: FloatFormat) -> str | None:
        """Returns why the node stays in fp32; None when it may take the narrow type."""
        if node.name not in self._network:
            return "answer head"
        if node.name not in self._weighted:
            return "decoding behind the last weighted layer"
        if any(each.HasField("g") for each in node.attribute):
            return "control flow"
        if node.op_type in _NORMALISATIONS or node.name in self._normalising:
            return "normalisation"
        if node.op_type in _EXPONENTIALS:
            return "exponentials and logarithms"
        if node.op_type == "Div" and node.input[1] not in self._constants:
            return "division by an activation"
        if node.op_type in _POOLING_OPS and self._summed(node) > MANY_ELEMENTS:
            return f"a sum over more than {MANY_ELEMENTS} elements"
        if node.op_type not in _LOWERABLE_OPS or not self._has_form(node, target):
            return f"{node.op_type} has no form in {target.precision} that is known to be safe"
        return self._constants_reason(node, target)

    def _is_float(self, node: onnx.NodeProto) -> bool:
        names = (*node.input, *node.output)
        return any(self._types.get(name) == TensorProto.FLOAT for name in names if name not in self._constants)

    def _has_form(self, node: onnx.NodeProto, target: FloatFormat) -> bool:
        if node.domain not in ("", "ai.onnx") or self._types.get(node.output[0]) != TensorProto.FLOAT:
            return False
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
        return target.onnx_type in allowed.get(schema.outputs[0].type_str, ())

    def _summed(self, node: onnx.NodeProto) -> float:
        """Returns how many elements one output element is the sum of; infinite when shapes do not say."""
        if node.op_type == "GlobalMaxPool":
            return 1
        if node.op_type == "AveragePool":
            kernel: list[int] = attribute(node, "kernel_shape", [])
            return math.prod(kernel)
        whole, rest = self._shapes.get(node.input[0]), self._shapes.get(node.output[0])
        if whole is None or rest is None or 0 in whole or 0 in rest:
            return math.inf
        return math.prod(whole) / math.prod(rest)

    def _constants_reason(self, node: onnx.NodeProto, target: FloatFormat) -> str | None:
        for index in narrow_inputs(node, self._opset):
            values = self._constants.get(node.input[index])
            if values is None or values.dtype != np.float32 or (node.op_type == "Pad" and index > 0):
                continue
            reason = constant_reason(values, target)
            if reason is not None:
                return reason
        return None


def constant_reason(values: NDArray[Any], target: FloatFormat) -> str | None:
    """Returns why a constant cannot be stored in the narrow type; None when it only loses what rounding takes."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if np.abs(finite).max(initial=0.0) > target.largest:
        return f"weights exceed {target.precision}'s range"
    norm = float(np.linalg.norm(finite))
    lost = float(np.linalg.norm(finite - target.rounded(finite).astype(np.float64)))
    if lost > _ROUNDING_MARGIN * target.roundoff * norm:
        return f"weights are too small for {target.precision}"
    return None


def narrow_inputs(node: onnx.NodeProto, opset: int) -> list[int]:
    """The inputs that must have the type of the node's output; the scales of a Resize, for example, stay fp32."""
    schema = onnx.defs.get_schema(node.op_type, opset)
    kind = schema.outputs[0].type_str
    formal = list(schema.inputs)
    return [
        index
        for index, name in enumerate(node.input)
        if name and formal[min(index, len(formal) - 1)].type_str == kind  # the last formal input may be variadic
    ]


def normalisation_chains(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Returns nodes of written-out normalisations: from a mean to the root of a variance and the division by it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: set[str] = set()
    for moment in nodes:
        if moment.op_type in _MOMENTS:
            found |= _chain_from(moment, readers)
    return found


def _chain_from(moment: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> set[str]:
    """Returns the moment, the nodes between it and a root, and the division by the root; empty without a root."""
    reached = {moment.name: moment}
    front = [moment]
    for _ in range(_LONGEST_CHAIN):
        behind = [each for node in front for name in node.output for each in readers.get(name, [])]
        front = [each for each in behind if each.op_type in _NORMALISING_OPS | _MOMENTS and each.name not in reached]
        reached |= {each.name: each for each in front}
    roots = [node for node in reached.values() if node.op_type in _ROOTS]
    if not roots:
        return set()
    return _before(roots, reached) | _behind(roots, readers)


def _before(roots: Iterable[onnx.NodeProto], reached: Mapping[str, onnx.NodeProto]) -> set[str]:
    producers = {name: node for node in reached.values() for name in node.output}
    pending, found = list(roots), set[str]()
    while pending:
        node = pending.pop()
        found.add(node.name)
        pending.extend(
            producers[name] for name in node.input if name in producers and producers[name].name not in found
        )
    return found


def _behind(roots: Iterable[onnx.NodeProto], readers: Mapping[str, list[onnx.NodeProto]]) -> set[str]:
    """Returns the nodes behind a root up to a division by it, or a product with its reciprocal."""
    pending, found = list(roots), set[str]()
    while pending:
        node = pending.pop()
        found.add(node.name)
        if node.op_type not in ("Div", "Mul") and node.op_type in _NORMALISING_OPS:
            pending.extend(
                each
                for name in node.output
                for each in readers.get(name, [])
                if each.op_type in _NORMALISING_OPS and each.name not in found
            )
    return found


def _moves_of_fp32(model: onnx.ModelProto, narrow: Collection[str]) -> set[str]:
    """Returns nodes that move fp32 values only: they can move them before the cast as well as behind it."""
    types = element_types(model)
    made_narrow = {name for node in model.graph.node if node.name in narrow for name in node.output}
    moves: set[str] = set()
    for node in model.graph.node:
        if node.name in narrow and node.op_type in MOVING_OPS:
            floats = [name for name in node.input if types.get(name) == TensorProto.FLOAT]
            if not made_narrow.intersection(floats):
                moves.add(node.name)
                made_narrow.difference_update(node.output)
    return moves


def _small_islands(model: onnx.ModelProto, narrow: Collection[str]) -> set[str]:
    """Returns nodes of connected narrow regions whose share of the FLOPs is below `SMALLEST_ISLAND`."""
    flops = {layer.node: layer.flops for layer in layer_precisions(model)}
    total = max(sum(flops.values()), 1)
    return {
        name
        for island in _islands(model, narrow)
        if sum(flops.get(name, 0) for name in island) < SMALLEST_ISLAND * total
        for name in island
    }


def _islands(model: onnx.ModelProto, narrow: Collection[str]) -> list[set[str]]:
    neighbours: dict[str, set[str]] = {name: set() for name in narrow}
    producers = {out: node.name for node in model.graph.node if node.name in narrow for out in node.output}
    for node in model.graph.node:
        if node.name in narrow:
            for name in node.input:
                if name in producers:
                    neighbours[node.name].add(producers[name])
                    neighbours[producers[name]].add(node.name)
    islands: list[set[str]] = []
    seen: set[str] = set()
    for start in neighbours:
        if start in seen:
            continue
        island, pending = set(), [start]
        while pending:
            name = pending.pop()
            if name not in island:
                island.add(name)
                pending.extend(neighbours[name])
        seen |= island
        islands.append(island)
    return islands
