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
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import attribute
from saccade.export.graph.onnx_graph import layer_of

SPARSITY_FILE = "sparsity.json"  # written beside a sparse form's deploy module: the layers that it claims
GROUP, MIN_ZEROS = 4, 2

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """A claimed layer that is not 2:4."""

    layer: str
    node: str  # node of the graph; empty when the graph has no node of that layer
    reason: str


def claimed_layers(directory: Path) -> tuple[str, ...]:
    """Returns the layers that a compression step claims to be 2:4. Raises GraphError for an unreadable file."""
    file = directory / SPARSITY_FILE
    try:
        claimed = orjson.loads(file.read_bytes())["claimed"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise GraphError(f"{file} does not list `claimed` layers ({error}); run compress again") from error
    return tuple(str(name) for name in claimed)


def mask_violations(model: onnx.ModelProto, claimed: Sequence[str]) -> tuple[Violation, ...]:
    """Every product of a claimed layer whose constant weight breaks the pattern. External weights must be loaded."""
    constants = _Constants(model)
    by_layer: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in _LAYOUTS:
            by_layer.setdefault(layer_of(node.name), []).append(node)
    found: list[Violation] = []
    for layer in claimed:
        nodes = by_layer.get(layer, [])
        if not nodes:
            found.append(Violation(layer, "", "the graph has no convolution or matrix product of this layer"))
        found.extend(
            Violation(layer, node.name, reason) for node in nodes if (reason := _defect(node, constants)) is not None
        )
    return tuple(found)


def zero_shares(model: onnx.ModelProto) -> dict[str, float]:
    """Returns the share of zeros in the constant weight of each convolution and matrix product, by node."""
    constants = _Constants(model)
    shares: dict[str, float] = {}
    for node in model.graph.node:
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


def _defect(node: onnx.NodeProto, constants: _Constants) -> str | None:
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

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output}

    def is_constant(self, name: str) -> bool:
        while name not in self._tensors:
            node = self._producers.get(name)
            if node is None or node.op_type not in (*_FOLDED, "Constant"):
                return False
            if node.op_type == "Constant":
                return True
            name = node.input[0]
        return True

    def value(self, name: str) -> Array:
        """A tensor's value. Raises _NotConstant, also for a quantized weight whose zeros are not stored as 0."""
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name])
        node = self._producers.get(name)
        if node is not None and node.op_type == "Constant":
            return _constant_value(node)
        if node is None or node.op_type not in _FOLDED:
            raise _NotConstant(f"its weight {name!r} is not a constant of the file")
        return _FOLDED[node.op_type](node, self)

    def zero_point(self, node: onnx.NodeProto) -> Array:
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(1, np.int8)
        return self.value(node.input[2])


def _constant_value(node: onnx.NodeProto) -> Array:
    for item in node.attribute:
        if item.name == "value":
            return numpy_helper.to_array(item.t)
    raise _NotConstant(f"its weight comes from {node.name!r}, a constant of another kind than a tensor")


def _dequantized(node: onnx.NodeProto, constants: _Constants) -> Array:
    """Returns the stored integers: with zero point 0 they are zero exactly where the float weight is."""
    if np.any(constants.zero_point(node).astype(np.float32) != 0):
        raise _NotConstant(f"the zero point of its weight at {node.name!r} is not 0, so stored zeros are no zeros")
    return constants.value(node.input[0])


def _quantized(node: onnx.NodeProto, constants: _Constants) -> Array:
    if np.any(constants.zero_point(node).astype(np.float32) != 0):
        raise _NotConstant(f"the zero point of its weight at {node.name!r} is not 0, so stored zeros are no zeros")
    value, scale = constants.value(node.input[0]), constants.value(node.input[1]).astype(np.float32)
    if scale.ndim == 1 and scale.size > 1:
        sides = [1] * value.ndim
        sides[attribute(node, "axis", 1)] = scale.size
        scale = scale.reshape(sides)
    kind = constants.value(node.input[2]).dtype if len(node.input) > 2 and node.input[2] else np.dtype(np.uint8)
    scaled = value.astype(np.float32) / scale
    return np.rint(scaled) if kind.kind in "iu" else scaled.astype(kind)


def _cast(node: onnx.NodeProto, constants: _Constants) -> Array:
    kind = helper.tensor_dtype_to_np_dtype(attribute(node, "to", TensorProto.FLOAT))
    return constants.value(node.input[0]).astype(kind)


def _transposed(node: onnx.NodeProto, constants: _Constants) -> Array:
    order = attribute(node, "perm", None)
    return np.transpose(constants.value(node.input[0]), None if order is None else list(order))


def _reshaped(node: onnx.NodeProto, constants: _Constants) -> Array:
    value = constants.value(node.input[0])
    wanted = [int(side) for side in constants.value(node.input[1])]
    if not attribute(node, "allowzero", 0):
        wanted = [value.shape[index] if side == 0 else side for index, side in enumerate(wanted)]
    return value.reshape(wanted)


def _same(node: onnx.NodeProto, constants: _Constants) -> Array:
    return constants.value(node.input[0])


_FOLDED: dict[str, Callable[[onnx.NodeProto, _Constants], Array]] = {
    "DequantizeLinear": _dequantized,
    "QuantizeLinear": _quantized,
    "Cast": _cast,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Identity": _same,
}


def _convolution(node: onnx.NodeProto, constants: _Constants) -> Array:
    """Returns the weight (K, C, R, S) with input channels moved last."""
    return np.moveaxis(constants.value(node.input[1]), 1, -1)


def _gemm(node: onnx.NodeProto, constants: _Constants) -> Array:
    """Returns B, stored (summed, outputs) or transposed, with the summed axis last."""
    weight = constants.value(node.input[1])
    return weight if attribute(node, "transB", 0) else weight.T


def _product(node: onnx.NodeProto, constants: _Constants) -> Array:
    """The constant side with the summed axis last; the right side is (summed, outputs), the left (outputs, summed)."""
    if constants.is_constant(node.input[1]):
        return np.moveaxis(constants.value(node.input[1]), -2, -1)
    return constants.value(node.input[0])


_LAYOUTS: dict[str, Callable[[onnx.NodeProto, _Constants], Array]] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _product,
}
