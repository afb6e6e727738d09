"""Makes the competitor with equal LayerNorm scales; it is taken only where the tuning split's metric is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from saccade.export.graph.onnx_graph import WEIGHTED_OPS
from saccade.export.precision.layer_norm_scales import adjustable_norms, with_equal_scales
from saccade.export.precision.quantization.calibration import observe
from saccade.export.precision.quantization.qdq import float_tensors
from saccade.export.precision.quantization.thresholds import Histogram

EQUAL_SCALES = "+equal-scales"  # appended to the name of a calibrator


@dataclass(frozen=True, slots=True)
class EqualScales:
    """The same network with channels of equal range behind its LayerNorms."""

    model: onnx.ModelProto
    histograms: Mapping[str, Histogram]  # histograms of all its float activations
    norms: int  # how many LayerNorms were changed


def equal_scales(
    model: onnx.ModelProto,
    histograms: Mapping[str, Histogram],
    images: NDArray[np.uint8],
    largest_batch: int,
    *,
    is_symmetric: bool,
) -> EqualScales | None:
    """Returns None for a network without such a LayerNorm; only changed tensors are observed again.

    `images` are calibration images. Raises GraphError when the changed network answers differently.
    """
    changed_outputs = [node.output[0] for node in adjustable_norms(model)]
    if not changed_outputs:
        return None
    changed, norms = with_equal_scales(model, images, is_symmetric=is_symmetric)
    moved = _moved_tensors(changed, changed_outputs)
    return EqualScales(changed, {**histograms, **observe(changed, moved, images, largest_batch)}, norms)


def _moved_tensors(model: onnx.ModelProto, norm_outputs: Iterable[str]) -> list[str]:
    """Returns LayerNorm outputs, and products behind them whose bias is added afterwards."""
    outputs = list(norm_outputs)
    products = [
        node.output[0]
        for node in model.graph.node
        if node.op_type in WEIGHTED_OPS and set(outputs).intersection(node.input)
    ]
    floats = float_tensors(model)
    return [name for name in (*outputs, *products) if name in floats]
