"""Writes static int8 and fp8 graphs for TensorRT: symmetric Q/DQ, weights per output channel, zero weights stay zero.

Weights become integers in the file; biases, inputs and outputs stay what they were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import constants_of, drop_unused_constants
from saccade.export.precision.quantization.placement_trt import QdqPlacement, weight_axis
from saccade.export.precision.quantization.thresholds import LARGEST_FP8, LARGEST_INT8, Range, symmetric_scale

_FP8_OPSET = 19  # the first opset whose Q/DQ take float8


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The numbers that quantized values are stored as."""

    name: str
    dtype: np.dtype[Any]
    largest: float
    is_integer: bool

    def codes(self, values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[Any]:
        """Returns the nearest codes of `values`; zero stays zero at every scale."""
        scaled = values.astype(np.float64) / scale
        rounded = np.round(scaled) if self.is_integer else scaled
        return np.clip(rounded, -self.largest, self.largest).astype(np.float32).astype(self.dtype)


INT8_FORMAT = NumberFormat("int8", np.dtype(np.int8), LARGEST_INT8, is_integer=True)
FP8_FORMAT = NumberFormat("float8e4m3", np.dtype(ml_dtypes.float8_e4m3fn), LARGEST_FP8, is_integer=False)


def quantized_for_tensorrt(
    model: onnx.ModelProto, placement: QdqPlacement, ranges: Mapping[str, Range], numbers: NumberFormat
) -> onnx.ModelProto:
    """Returns a copy of `model` with explicit Q/DQ. Raises GraphError for an opset without such numbers."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if not numbers.is_integer and opset < _FP8_OPSET:
        raise GraphError(f"{numbers.name} needs opset {_FP8_OPSET}, the graph has {opset}: raise onnx.opset")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    zero = f"{numbers.name}_zero"
    copy.graph.initializer.append(numpy_helper.from_array(np.zeros((), numbers.dtype), zero))
    pairs = _activation_pairs(placement, ranges, numbers, zero, copy)
    weights = _quantized_weights(copy, placement.nodes, numbers)
    readers = {(edge.node, edge.tensor) for edge in placement.edges}
    nodes: list[onnx.NodeProto] = []
    pending = {name for name in pairs if name in {value.name for value in copy.graph.input}}
    nodes += [node for name in sorted(pending) for node in pairs[name]]
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if (node.name, name) in readers:
                node.input[index] = pairs[name][1].output[0]
        if node.name in weights:
            nodes.append(weights[node.name])
            node.input[1] = weights[node.name].output[0]
        nodes.append(node)
        nodes += [added for name in node.output if name in pairs for added in pairs[name]]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    drop_unused_constants(copy)
    return copy


def weight_scale(values: NDArray[np.float32], axis: int | None, numbers: NumberFormat) -> NDArray[np.float32]:
    """Returns scales per output channel along `axis`, shaped to broadcast; one number when there is no such axis."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values).max(axis=others, keepdims=axis is not None)
    return np.asarray(np.where(largest > 0.0, largest / numbers.largest, 1.0), np.float32)


def shared_ranges(placement: QdqPlacement, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Returns each quantized tensor's range, widened to its group's."""
    shared: dict[str, Range] = {}
    for group in placement.groups:
        found = [ranges[name] for name in group]
        whole = Range(min(each.low for each in found), max(each.high for each in found))
        shared |= dict.fromkeys(group, whole)
    return shared


def _activation_pairs(
    placement: QdqPlacement, ranges: Mapping[str, Range], numbers: NumberFormat, zero: str, model: onnx.ModelProto
) -> dict[str, tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Makes one Quantize and Dequantize per tensor, shared by all its readers."""
    pairs: dict[str, tuple[onnx.NodeProto, onnx.NodeProto]] = {}
    for name, chosen in shared_ranges(placement, ranges).items():
        scale = np.array(symmetric_scale(chosen, numbers.largest), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        given = [f"{name}_scale", zero]
        pairs[name] = (
            helper.make_node("QuantizeLinear", [name, *given], [f"{name}_quantized"], name=f"{name}_Quantize"),
            helper.make_node(
                "DequantizeLinear", [f"{name}_quantized", *given], [f"{name}_dequantized"], name=f"{name}_Dequantize"
            ),
        )
    return pairs


def _quantized_weights(
    model: onnx.ModelProto, nodes: Collection[str], numbers: NumberFormat
) -> dict[str, onnx.NodeProto]:
    """Makes each named node's Dequantize; its codes and scales join the graph's constants."""
    constants = constants_of(model)
    made: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        if node.name not in nodes:
            continue
        values, axis, prefix = constants[node.input[1]], weight_axis(node), f"{node.name}_weight"
        scale = weight_scale(values, axis, numbers)
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(numbers.codes(values, scale), f"{prefix}_codes"),
                numpy_helper.from_array(scale.reshape(-1) if axis is not None else scale, f"{prefix}_scale"),
            ]
        )
        along: dict[str, Any] = {} if axis is None else {"axis": axis}
        made[node.name] = helper.make_node(
            "DequantizeLinear",
            [f"{prefix}_codes", f"{prefix}_scale"],
            [f"{prefix}_dequantized"],
            name=f"{node.name}_DequantizeWeight",
            **along,
        )
    return made
