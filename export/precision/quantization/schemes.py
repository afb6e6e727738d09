"""Describes the ways to quantize a network by target in one form, so that choosing and measuring share their code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import onnx

from saccade.export.graph.onnx_graph import WEIGHTED_OPS, weighted_part
from saccade.export.precision.quantization.placement_trt import QdqPlacement, placement_for_tensorrt
from saccade.export.precision.quantization.qdq import (
    has_vnni,
    last_tensors,
    nodes_to_quantize,
    observed_tensors,
    quantized,
)
from saccade.export.precision.quantization.qdq_trt import FP8_FORMAT, INT8_FORMAT, NumberFormat, quantized_for_tensorrt
from saccade.export.precision.quantization.thresholds import FP8, INT8, UINT8, Grid, Range
from saccade.export.variants import Precision, VariantKind


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """The tensors and nodes of one network that become low precision; `apply` makes the graph for given ranges."""

    nodes: tuple[str, ...]  # quantized nodes in graph order
    tensors: tuple[str, ...]  # activations that need a range
    unclipped: frozenset[str]  # activations that keep their extremes
    reasons: Mapping[str, str]  # reasons by weighted node that stays float
    apply: Callable[[Mapping[str, Range]], onnx.ModelProto]


@dataclass(frozen=True, slots=True)
class QuantizationScheme:
    """The number formats and the planner of one target."""

    precision: Precision
    grid: Grid  # numbers of activations
    numbers: NumberFormat  # numbers of weights
    # Plans a network, given name prefixes that the recipe keeps float, and nodes that a measurement keeps float, with
    # reasons.
    plan: Callable[[onnx.ModelProto, tuple[str, ...], Mapping[str, str]], QuantizationPlan]


def _plan_for_cpu(
    model: onnx.ModelProto, keep_float: tuple[str, ...], taken_out: Mapping[str, str]
) -> QuantizationPlan:
    names = [name for name in nodes_to_quantize(model, keep_float) if name not in taken_out]
    chosen = set(names)
    reasons = {
        node.name: taken_out.get(node.name)
        or (
            "kept float by the recipe"
            if node.name.startswith(keep_float)
            else "its weights are not constant, or it only copies"
        )
        for node in weighted_part(model)
        if node.op_type in WEIGHTED_OPS and node.name not in chosen
    }
    return QuantizationPlan(
        tuple(names),
        tuple(observed_tensors(model, names)),
        frozenset(last_tensors(model, names)),
        reasons,
        lambda ranges: quantized(model, names, ranges, has_vnni()),
    )


def _plan_for_tensorrt(
    numbers: NumberFormat, model: onnx.ModelProto, keep_float: tuple[str, ...], taken_out: Mapping[str, str]
) -> QuantizationPlan:
    placement: QdqPlacement = placement_for_tensorrt(model, keep_float, taken_out)
    return QuantizationPlan(
        placement.nodes,
        placement.tensors,
        frozenset(),
        placement.reasons,
        lambda ranges: quantized_for_tensorrt(model, placement, ranges, numbers),
    )


INT8_CPU = QuantizationScheme("int8", UINT8, INT8_FORMAT, _plan_for_cpu)
INT8_TENSORRT = QuantizationScheme("int8", INT8, INT8_FORMAT, partial(_plan_for_tensorrt, INT8_FORMAT))
FP8_TENSORRT = QuantizationScheme("fp8", FP8, FP8_FORMAT, partial(_plan_for_tensorrt, FP8_FORMAT))

SCHEMES: dict[VariantKind, QuantizationScheme] = {
    "int8-cpu": INT8_CPU,
    "int8-openvino": INT8_CPU,
    "int8-cpu-pruned": INT8_CPU,
    "int8-trt": INT8_TENSORRT,
    "int8-trt-sparse24": INT8_TENSORRT,
    "int8-trt-pruned": INT8_TENSORRT,
    "fp8-trt": FP8_TENSORRT,
}
