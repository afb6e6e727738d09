"""Measures how much each layer's quantization disturbs the network's outputs, one layer at a time.

One graph holds every layer in both precisions with a switch each, so that one session measures a whole network.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.data.image_split import batches
from saccade.export.graph.graph_rewrites import constants_of
from saccade.export.graph.onnx_graph import network_outputs
from saccade.export.graph.sessions import cpu_session, quiet_options
from saccade.export.precision.quantization.placement_trt import weight_axis
from saccade.export.precision.quantization.qdq_trt import NumberFormat, weight_scale
from saccade.export.precision.quantization.thresholds import Grid, Range, symmetric_scale

_QUIETEST = 1e-12  # least noise to signal that is reported, so that no layer is infinitely exact


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """Noise to signal at the network's outputs by layer; empty when measuring would have taken too long."""

    # by node name: power of the error divided by power of the output, averaged over all outputs
    noise: Mapping[str, float]
    seconds: float  # seconds that measuring took, or would have taken

    def decibels(self, node: str) -> float | None:
        """Signal to noise of a node; a smaller value means a more sensitive layer."""
        found = self.noise.get(node)
        return None if found is None else round(-10.0 * float(np.log10(max(found, _QUIETEST))), 2)

    def worst_first(self) -> list[str]:
        return sorted(self.noise, key=lambda node: -self.noise[node])


def sensitivities(
    model: onnx.ModelProto,
    nodes: Collection[str],
    ranges: Mapping[str, Range],
    grid: Grid,
    numbers: NumberFormat,
    images: NDArray[np.uint8],
    batch_size: int,
    budget_s: float,
) -> Sensitivities:
    """Quantizes each named weighted node alone: its weights, and its activation when `ranges` has one."""
    switched = switchable(model, nodes, ranges, grid, numbers)
    names = [node.name for node in model.graph.node if node.name in set(nodes)]
    session = _session(switched)
    wanted = _outputs(session, names, (), images, batch_size)
    start = time.perf_counter()
    _outputs(session, names, (), images, batch_size)
    expected_s = (time.perf_counter() - start) * len(names)
    if expected_s > budget_s:
        return Sensitivities({}, expected_s)
    noise = {name: _noise(_outputs(session, names, (name,), images, batch_size), wanted) for name in names}
    return Sensitivities(noise, time.perf_counter() - start)


def switchable(
    model: onnx.ModelProto, nodes: Collection[str], ranges: Mapping[str, Range], grid: Grid, numbers: NumberFormat
) -> onnx.ModelProto:
    """Returns a copy that takes a boolean `switch_of(node)` per named node and answers the raw outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = constants_of(copy)
    made: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.name in nodes:
            switch = switch_of(node.name)
            copy.graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
            if node.input[0] in ranges:
                made += _switched_activation(copy, node, ranges[node.input[0]], grid, switch)
            weight = constants[node.input[1]]
            scale = weight_scale(weight, weight_axis(node), numbers)
            rounded = numbers.codes(weight, scale).astype(np.float32) * scale
            made.append(_switched_weight(copy, node, rounded, switch))
        made.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(made)
    del copy.graph.output[:]
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in network_outputs(model)
    )
    return copy


def switch_of(node: str) -> str:
    return f"{node}_switch"


def _switched_activation(
    model: onnx.ModelProto, node: onnx.NodeProto, chosen: Range, grid: Grid, switch: str
) -> list[onnx.NodeProto]:
    prefix, read = f"{node.name}_read", node.input[0]
    scale, zero = _parameters(grid, chosen)
    model.graph.initializer.extend(
        [numpy_helper.from_array(scale, f"{prefix}_scale"), numpy_helper.from_array(zero, f"{prefix}_zero")]
    )
    given = [f"{prefix}_scale", f"{prefix}_zero"]
    node.input[0] = f"{prefix}_chosen"
    return [
        helper.make_node("QuantizeLinear", [read, *given], [f"{prefix}_codes"], name=f"{prefix}_Quantize"),
        helper.make_node(
            "DequantizeLinear", [f"{prefix}_codes", *given], [f"{prefix}_rounded"], name=f"{prefix}_Dequantize"
        ),
        helper.make_node("Where", [switch, f"{prefix}_rounded", read], [node.input[0]], name=f"{prefix}_Where"),
    ]


def _switched_weight(
    model: onnx.ModelProto, node: onnx.NodeProto, rounded: NDArray[np.float32], switch: str
) -> onnx.NodeProto:
    prefix, weight = f"{node.name}_weight", node.input[1]
    model.graph.initializer.append(numpy_helper.from_array(rounded.astype(np.float32), f"{prefix}_rounded"))
    node.input[1] = f"{prefix}_chosen"
    return helper.make_node("Where", [switch, f"{prefix}_rounded", weight], [node.input[1]], name=f"{prefix}_Where")


def _parameters(grid: Grid, chosen: Range) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Returns scale and zero point of a grid over a range."""
    if grid.is_symmetric:
        scale = symmetric_scale(chosen, grid.largest)
        return np.array(scale, np.float32), np.zeros((), grid.dtype)
    scale = (chosen.high - chosen.low) / grid.largest
    return np.array(scale, np.float32), np.array(round(-chosen.low / scale), grid.dtype)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # keeps the pairs as written
    return cpu_session(model.SerializeToString(), options)


def _outputs(
    session: onnxruntime.InferenceSession,
    names: Sequence[str],
    switched_on: Collection[str],
    images: NDArray[np.uint8],
    batch_size: int,
) -> list[NDArray[np.float64]]:
    switches = {switch_of(name): np.array(name in switched_on) for name in names}
    parts = [session.run(None, {"images": batch, **switches}) for batch in batches(images, batch_size)]
    return [np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True)]


def _noise(found: Sequence[NDArray[np.float64]], wanted: Sequence[NDArray[np.float64]]) -> float:
    ratios = [
        float(np.square(got - want).sum() / max(np.square(want).sum(), _QUIETEST))
        for got, want in zip(found, wanted, strict=True)
    ]
    return float(np.mean(ratios))
