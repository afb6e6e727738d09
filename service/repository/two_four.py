"""Checks on an ONNX graph that every layer that claims 2:4 sparsity has it.

TensorRT takes sparse kernels for a convolution when, for every output channel and kernel position, every four
consecutive input channels hold at least two zeros; for a matrix product the same holds along the summed axis. Quantized
weights are checked as the integers that the product reads. A claimed layer that is missing or whose weight is not
constant is a violation as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.service.repository.layer_precision import FLOAT8E4M3FN
from saccade.service.repository.onnx_graph import GraphNode, OnnxGraph

GROUP, MIN_ZEROS = 4, 2
_FLOAT, _FLOAT16 = 1, 10  # of TensorProto.DataType
_FLOAT8_ZERO = 2.0**-10  # up to here, half of the smallest step, fp8 rounds to zero

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """A claimed layer that is not 2:4."""

    layer: str
    node: str  # node of the graph; empty when the graph has no node of that layer
    reason: str


def mask_violations(graph: OnnxGraph, claimed: Sequence[str]) -> tuple[Violation, ...]:
    """Every product of a claimed layer whose constant weight breaks the pattern. External weights must be loaded."""
    constants = _Constants(graph)
    by_layer: dict[str, list[GraphNode]] = {}
    for node in graph.nodes:
        if node.op_type in _LAYOUTS:
            by_layer.setdefault(node.name.rpartition("/")[0], []).append(node)
    found: list[Violation] = []
    for layer in claimed:
        nodes = by_layer.get(layer, [])
        if not nodes:
            found.append(Violation(layer, "", "the graph has no convolution or matrix product of this layer"))
        found.extend(
            Violation(layer, node.name, reason) for node in nodes if (reason := _defect(node, constants)) is not None
        )
    return tuple(found)


def zero_shares(graph: OnnxGraph) -> dict[str, float]:
    """Returns the share of zeros in the constant weight of each convolution and matrix product, by node."""
    constants = _Constants(graph)
    shares: dict[str, float] = {}
    for node in graph.nodes:
        if node.op_type in _LAYOUTS and any(constants.is_constant(name) for name in node.input[:2]):
            try:
                weight = _LAYOUTS[node.op_type](node, constants)
            except _NotConstant:
                continue
            shares[node.name] = float((weight.astype(np.float32) == 0).mean())
    return shares


def broken_groups(weight: Array) -> int:
    """Counts groups of four along the last axis with fewer than two zeros; an incomplete last group counts as one."""
    whole = weight.shape[-1] // GROUP * GROUP
    zeros = (weight[..., :whole].astype(np.float32) == 0).reshape(*weight.shape[:-1], -1, GROUP).sum(-1)
    rest = math.prod(weight.shape[:-1]) if weight.shape[-1] > whole else 0
    return int((zeros < MIN_ZEROS).sum()) + rest


def _defect(node: GraphNode, constants: _Constants) -> str | None:
    try:
        weight = _LAYOUTS[node.op_type](node, constants)
    except _NotConstant as error:
        return str(error)
    broken = broken_groups(weight)
    if not broken:
        return None
    return f"{broken} of {weight.size // GROUP} groups of four input channels hold more than two weights"


class _NotConstant(Exception):
    """The file alone does not give this weight; the text says why."""


class _Constants:
    """Evaluates tensors of a graph that do not depend on its inputs."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._producers = graph.producers

    def is_constant(self, name: str) -> bool:
        while name not in self._graph.constants:
            node = self._producers.get(name)
            if node is None or node.op_type not in _FOLDED:
                return False
            name = node.input[0]
        return True

    def value(self, name: str) -> Array:
        """A tensor's value. Raises _NotConstant, also for a quantized weight whose zeros are not stored as 0."""
        if name in self._graph.constants:
            return self._graph.constants[name].array(self._graph.folder)
        node = self._producers.get(name)
        if node is None or node.op_type not in _FOLDED:
            raise _NotConstant(f"its weight {name!r} is not a constant of the file")
        return _FOLDED[node.op_type](node, self)

    def element_type(self, name: str) -> int:
        """The stored type; 0 for what is not stored."""
        return self._graph.constants[name].element_type if name in self._graph.constants else 0

    def zero_point(self, node: GraphNode) -> Array:
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(1, np.int8)
        return self.value(node.input[2])


def _dequantized(node: GraphNode, constants: _Constants) -> Array:
    """Returns the stored integers: with zero point 0 they are zero exactly where the float weight is."""
    if np.any(constants.zero_point(node).astype(np.float32) != 0):
        raise _NotConstant(f"the zero point of its weight at {node.name!r} is not 0, so stored zeros are no zeros")
    return constants.value(node.input[0])


def _quantized(node: GraphNode, constants: _Constants) -> Array:
    if np.any(constants.zero_point(node).astype(np.float32) != 0):
        raise _NotConstant(f"the zero point of its weight at {node.name!r} is not 0, so stored zeros are no zeros")
    value, scale = constants.value(node.input[0]), constants.value(node.input[1]).astype(np.float32)
    if scale.ndim == 1 and scale.size > 1:
        sides = [1] * value.ndim
        sides[node.integers.get("axis", 1)] = scale.size
        scale = scale.reshape(sides)
    scaled = value.astype(np.float32) / scale
    is_float8 = len(node.input) > 2 and constants.element_type(node.input[2]) == FLOAT8E4M3FN
    return np.where(np.abs(scaled) <= _FLOAT8_ZERO, 0, scaled) if is_float8 else np.rint(scaled)


def _cast(node: GraphNode, constants: _Constants) -> Array:
    value = constants.value(node.input[0])
    return value.astype(np.float16 if node.integers.get("to", _FLOAT) == _FLOAT16 else np.float32)


def _transposed(node: GraphNode, constants: _Constants) -> Array:
    order = node.lists.get("perm")
    return np.transpose(constants.value(node.input[0]), None if order is None else list(order))


def _reshaped(node: GraphNode, constants: _Constants) -> Array:
    value = constants.value(node.input[0])
    wanted = [int(side) for side in constants.value(node.input[1])]
    if not node.integers.get("allowzero", 0):
        wanted = [value.shape[index] if side == 0 else side for index, side in enumerate(wanted)]
    return value.reshape(wanted)


def _same(node: GraphNode, constants: _Constants) -> Array:
    return constants.value(node.input[0])


_FOLDED: dict[str, Callable[[GraphNode, _Constants], Array]] = {
    "DequantizeLinear": _dequantized,
    "QuantizeLinear": _quantized,
    "Cast": _cast,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Identity": _same,
}


def _convolution(node: GraphNode, constants: _Constants) -> Array:
    """Returns the weight (K, C, R, S) with input channels moved last."""
    return np.moveaxis(constants.value(node.input[1]), 1, -1)


def _gemm(node: GraphNode, constants: _Constants) -> Array:
    """Returns B, stored (summed, outputs) or transposed, with the summed axis last."""
    weight = constants.value(node.input[1])
    return weight if node.integers.get("transB", 0) else weight.T


def _product(node: GraphNode, constants: _Constants) -> Array:
    """The constant side with the summed axis last; the right side is (summed, outputs), the left (outputs, summed)."""
    if constants.is_constant(node.input[1]):
        return np.moveaxis(constants.value(node.input[1]), -2, -1)
    return constants.value(node.input[0])


_LAYOUTS: dict[str, Callable[[GraphNode, _Constants], Array]] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _product,
}
