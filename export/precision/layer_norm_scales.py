"""Gives the channels behind a LayerNorm equal ranges (RepQuant) without changing the network's function.

Behind a LayerNorm the channels of a transformer have very different ranges, and one scale for all of them wastes most
codes. RepQuant (Li et al., arXiv 2402.05628; first in RepQ-ViT, arXiv 2212.08254) calibrates a scale and a zero point
per channel, then moves the channels onto their mean: the LayerNorm's weight and bias take the change, the next layer's
weight and bias undo it. One plain Q/DQ pair with one scale then rounds as one per channel would.

With r1 = s / mean(s) and r2 = z - mean(z), per channel: weight / r1 and (bias + s r2) / r1 in the LayerNorm; rows of
the next weight times r1, and its bias less (s r2) times the weight. Symmetric codes have no zero point: r2 = 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from saccade.export.data.image_split import batches
from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import attribute, constants_of, drop_unused_constants, tensor_shapes
from saccade.export.graph.onnx_graph import network_outputs
from saccade.export.graph.sessions import cpu_session
from saccade.export.qualification.parity import relative_l2

_MAX_ERROR = 1e-5  # relative L2 of raw network outputs
_LEVELS = 255  # steps between the codes of eight bits; fewer bits would scale all channels alike
_SMALLEST_SHARE = 1 / 64  # share of the mean scale: a nearly constant channel is not enlarged further
_BATCH = 8
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelRanges:
    """Smallest and largest values of a tensor's channels over the calibration images."""

    low: FloatArray  # (channels,)
    high: FloatArray  # (channels,)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelChange:
    """The change to each channel: x becomes (x + shift) / ratio."""

    ratio: FloatArray  # (channels,) r1 of the method
    shift: FloatArray  # (channels,) s r2 of the method; zeros when codes are symmetric


def adjustable_norms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Finds LayerNorms over the last axis that only weighted layers with constant weights read.

    A norm that also feeds a residual sum or leaves the graph would pass changed numbers on.
    """
    constants = constants_of(model)
    shapes = tensor_shapes(model)
    leaving = {output.name for output in model.graph.output} | set(network_outputs(model))
    return [
        node
        for node in model.graph.node
        if node.op_type == "LayerNormalization"
        and all(name in constants for name in node.input[1:] if name)
        and attribute(node, "axis", -1) in (-1, len(shapes.get(node.output[0], ())) - 1)
        and constants[node.input[1]].ndim == 1
        and node.output[0] not in leaving
        and not any(node.output[1:])
        and _all_weighted(model, node.output[0], constants)
    ]


def with_equal_scales(
    model: onnx.ModelProto, images: NDArray[np.uint8], *, is_symmetric: bool
) -> tuple[onnx.ModelProto, int]:
    """Returns a copy whose LayerNorms give channels of equal range, and how many of them were changed.

    images: calibration (n, height, width, 3). Raises GraphError when the copy answers differently.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    norms = adjustable_norms(changed)
    if not norms:
        return changed, 0
    ranges = observed_channels(model, [node.output[0] for node in norms], images)
    for node in norms:
        apply_change(changed, node, change_for(ranges[node.output[0]], is_symmetric=is_symmetric))
    drop_unused_constants(changed)
    ensure_same_function(model, changed, images[:_BATCH])
    return changed, len(norms)


def change_for(ranges: ChannelRanges, *, is_symmetric: bool) -> ChannelChange:
    """Moves every channel onto the mean scale and zero point; the zero point stays among the codes."""
    if is_symmetric:
        scales = 2.0 * np.maximum(np.abs(ranges.low), np.abs(ranges.high)) / _LEVELS
    else:
        scales = (ranges.high - ranges.low) / _LEVELS
    mean = float(scales.mean())
    if mean <= 0.0:
        return ChannelChange(np.ones_like(scales), np.zeros_like(scales))
    scales = np.maximum(scales, mean * _SMALLEST_SHARE)
    mean = float(scales.mean())
    if is_symmetric:
        return ChannelChange(scales / mean, np.zeros_like(scales))
    # Measured from the middle, so that a widened channel stays centred.
    zero_points = _LEVELS / 2 - (ranges.low + ranges.high) / 2 / scales
    target = float(np.clip(zero_points.mean(), 0, _LEVELS))
    return ChannelChange(scales / mean, scales * (zero_points - target))


def apply_change(model: onnx.ModelProto, norm: onnx.NodeProto, change: ChannelChange) -> None:
    """Writes the change into a LayerNorm and undoes it in the layers behind, which get constants of their own."""
    constants = constants_of(model)
    weight = constants[norm.input[1]].astype(np.float64)
    has_bias = len(norm.input) > 2 and bool(norm.input[2])
    bias = constants[norm.input[2]].astype(np.float64) if has_bias else np.zeros_like(weight)
    norm.input[1] = _add_constant(model, f"{norm.name}_equal_weight", weight / change.ratio)
    offset = _add_constant(model, f"{norm.name}_equal_bias", (bias + change.shift) / change.ratio)
    del norm.input[2:]
    norm.input.append(offset)
    for node in [node for node in model.graph.node if norm.output[0] in node.input]:
        _take_back(model, node, constants, change)


def observed_channels(model: onnx.ModelProto, names: list[str], images: NDArray[np.uint8]) -> dict[str, ChannelRanges]:
    """Returns the extremes per channel (the last axis) of each named tensor."""
    session = _session(model, names)
    lows: dict[str, FloatArray] = {}
    highs: dict[str, FloatArray] = {}
    for batch in batches(images, _BATCH):
        for name, values in zip(names, session.run(names, {"images": batch}), strict=True):
            rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
            lows[name] = np.minimum(lows.get(name, np.inf), rows.min(0))
            highs[name] = np.maximum(highs.get(name, -np.inf), rows.max(0))
    return {name: ChannelRanges(lows[name], highs[name]) for name in names}


def ensure_same_function(first: onnx.ModelProto, second: onnx.ModelProto, images: NDArray[np.uint8]) -> None:
    """Raises GraphError when raw network outputs differ by more than rounding."""
    names = list(network_outputs(first))
    answers = [_session(model, names).run(names, {"images": images}) for model in (first, second)]
    error = max(relative_l2(found, expected) for expected, found in zip(*answers, strict=True))
    if not error <= _MAX_ERROR:
        raise GraphError(
            f"equal LayerNorm scales changed raw outputs by {error:.1e} (relative L2), allowed is {_MAX_ERROR}: "
            "set calibration.layer_norm_reparametrisation to false"
        )


def _all_weighted(model: onnx.ModelProto, tensor: str, constants: Mapping[str, NDArray[Any]]) -> bool:
    readers = [node for node in model.graph.node if tensor in node.input]
    return bool(readers) and all(_is_weighted_reader(node, tensor, constants) for node in readers)


def _is_weighted_reader(node: onnx.NodeProto, tensor: str, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Accepts MatMul or Gemm whose left side alone is the tensor and whose right side is a constant matrix."""
    if node.op_type not in ("MatMul", "Gemm") or list(node.input).count(tensor) != 1 or node.input[0] != tensor:
        return False
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0) or any(n not in constants for n in node.input[2:] if n)
    ):
        return False
    return node.input[1] in constants and constants[node.input[1]].ndim == 2


def _take_back(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], change: ChannelChange
) -> None:
    weight = constants[node.input[1]].astype(np.float64)
    is_transposed = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
    rows = weight.T if is_transposed else weight  # (channels, outputs)
    # The shift is subtracted again here, because it does not pass through the ratio.
    surplus = change.shift @ rows
    made = rows * change.ratio[:, None]
    node.input[1] = _add_constant(model, f"{node.name}_equal_weight", made.T if is_transposed else made)
    if not surplus.any():
        return
    if node.op_type == "Gemm":
        alpha, beta = (float(attribute(node, name, 1.0)) for name in ("alpha", "beta"))
        has_bias = len(node.input) > 2 and bool(node.input[2])
        bias = beta * constants[node.input[2]].astype(np.float64) if has_bias else np.zeros_like(surplus)
        for found in [found for found in node.attribute if found.name == "beta"]:
            node.attribute.remove(found)
        del node.input[2:]
        node.input.append(_add_constant(model, f"{node.name}_equal_bias", bias - alpha * surplus))
        return
    _add_to_bias(model, node, constants, -surplus)


def _add_to_bias(
    model: onnx.ModelProto, product: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], more: FloatArray
) -> None:
    """Adds to the bias in the Add behind a MatMul; inserts an Add when the MatMul has none of its own."""
    readers = [node for node in model.graph.node if product.output[0] in node.input]
    if len(readers) == 1 and readers[0].op_type == "Add":
        add = readers[0]
        place = 1 - list(add.input).index(product.output[0])
        bias = constants.get(add.input[place])
        if bias is not None and bias.ndim <= 1:
            add.input[place] = _add_constant(model, f"{add.name}_equal_bias", bias.astype(np.float64) + more)
            return
    inner = f"{product.output[0]}_unbiased"
    bias_name = _add_constant(model, f"{product.name}_equal_bias", more)
    add = helper.make_node("Add", [inner, bias_name], [product.output[0]], name=f"{product.name}_equal_add")
    product.output[0] = inner
    model.graph.node.insert(list(model.graph.node).index(product) + 1, add)


def _add_constant(model: onnx.ModelProto, name: str, values: FloatArray) -> str:
    """Adds a constant under a new name: equal constants are shared among layers, and graphs may change twice."""
    taken = {tensor.name for tensor in model.graph.initializer}
    name = next(each for each in chain([name], (f"{name}_{index}" for index in count(2))) if each not in taken)
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    return name


def _session(model: onnx.ModelProto, names: Iterable[str]) -> onnxruntime.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known
    )
    return cpu_session(watched.SerializeToString())
