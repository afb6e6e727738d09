"""Observes activations on real calibration images, once for all calibrators."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from saccade.export.data.image_split import batches
from saccade.export.graph.graph_rewrites import tensor_shapes
from saccade.export.graph.sessions import cpu_session
from saccade.export.precision.quantization.thresholds import (
    BINS,
    UINT8,
    Grid,
    Histogram,
    Range,
    entropy_range,
    minmax_range,
    mse_range,
    percentile_range,
)
from saccade.export.recipe import CalibrationSpec

LARGEST_BATCH = 8
_MEMORY_BYTES = 512 << 20  # bytes of observed activations at once; large networks are observed part by part
_UNKNOWN_BYTES = 1 << 20  # bytes assumed for a tensor whose shape inference does not give


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A named function from a histogram to a range."""

    name: str
    choose: Callable[[Histogram], Range]


@dataclass(frozen=True, slots=True)
class ObservationPart:
    """Tensors that are observed in one pass over the images."""

    tensors: tuple[str, ...]
    batch_size: int


def calibrators_of(spec: CalibrationSpec, grid: Grid = UINT8) -> tuple[Calibrator, ...]:
    """Returns the calibrators that a recipe asks for, in the order that decides ties, the cheapest idea first.

    Entropy counts equal steps, so a grid without equal steps takes min-max in its place.
    """
    chosen: list[Calibrator] = []
    if spec.minmax or (spec.entropy and not grid.is_uniform):
        chosen.append(Calibrator("minmax", minmax_range))
    if spec.entropy and grid.is_uniform:
        chosen.append(Calibrator("entropy", lambda histogram: entropy_range(histogram, grid)))
    chosen.extend(_percentile(value) for value in spec.percentiles)
    if spec.mse:
        chosen.append(Calibrator("mse", lambda histogram: mse_range(histogram, grid)))
    return tuple(chosen)


def observe(
    model: onnx.ModelProto, tensors: Iterable[str], images: NDArray[np.uint8], largest_batch: int = LARGEST_BATCH
) -> dict[str, Histogram]:
    """Returns histograms of the named float tensors over all images (n, height, width, 3).

    The graph runs twice per part: first to find the extremes, then to fill bins that fit them.
    """
    histograms: dict[str, Histogram] = {}
    for part in observation_parts(model, list(tensors), largest_batch):
        histograms |= _observed(model, part, images)
    return histograms


def observation_parts(
    model: onnx.ModelProto, names: list[str], largest_batch: int = LARGEST_BATCH, memory_bytes: int = _MEMORY_BYTES
) -> list[ObservationPart]:
    """Splits tensors so that a batch of each part fits into memory: smaller batches first, then fewer tensors."""
    shapes = tensor_shapes(model)
    sizes = {name: _image_bytes(shapes.get(name)) for name in names}
    total = sum(sizes.values())
    batch = max(1, min(largest_batch, memory_bytes // max(total, 1)))
    parts: list[list[str]] = [[]]
    used = 0
    for name in names:
        if parts[-1] and used + sizes[name] * batch > memory_bytes:
            parts.append([])
            used = 0
        parts[-1].append(name)
        used += sizes[name] * batch
    return [ObservationPart(tuple(part), batch) for part in parts if part]


def _image_bytes(shape: tuple[int | str, ...] | None) -> int:
    if shape is None or any(side == 0 for side in shape):
        return _UNKNOWN_BYTES
    return 4 * math.prod(side for side in shape if isinstance(side, int))


def _observed(model: onnx.ModelProto, part: ObservationPart, images: NDArray[np.uint8]) -> dict[str, Histogram]:
    names = list(part.tensors)
    session = _observing_session(model, names)
    lows = dict.fromkeys(names, np.inf)
    highs = dict.fromkeys(names, -np.inf)
    for name, values in _activations(session, part, images):
        lows[name] = min(lows[name], float(values.min()))
        highs[name] = max(highs[name], float(values.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for name, values in _activations(session, part, images):
        counts[name] += _bin_counts(values, lows[name], highs[name])
    return {name: Histogram(lows[name], highs[name], counts[name]) for name in names}


def ranges_of(
    histograms: Mapping[str, Histogram], calibrator: Calibrator, unclipped: Collection[str] = ()
) -> dict[str, Range]:
    """Returns the calibrator's range of every tensor; tensors in `unclipped` keep their extremes."""
    return {
        name: minmax_range(histogram) if name in unclipped else calibrator.choose(histogram)
        for name, histogram in histograms.items()
    }


def _percentile(value: float) -> Calibrator:
    return Calibrator(f"percentile-{value:g}", lambda histogram: percentile_range(histogram, value))


def _bin_counts(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    scale = BINS / max(high - low, 1e-12)
    bins = ((values.ravel() - np.float32(low)) * np.float32(scale)).astype(np.int32)
    np.clip(bins, 0, BINS - 1, out=bins)
    return np.bincount(bins, minlength=BINS)


def _activations(
    session: onnxruntime.InferenceSession, part: ObservationPart, images: NDArray[np.uint8]
) -> Iterable[tuple[str, NDArray[Any]]]:
    for batch in batches(images, part.batch_size):
        yield from zip(part.tensors, session.run(part.tensors, {"images": batch}), strict=True)


def _observing_session(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    """Opens the same graph with the named tensors as extra outputs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return cpu_session(watched.SerializeToString())
