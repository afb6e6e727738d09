"""Which source pixels make an output pixel, by the filters of Pillow and of torch: pure functions.

`models/contract/resampling.py` leaves the same arithmetic to libraries. Here it is written out, because a GPU kernel
needs the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import Resample

_Doubles = NDArray[np.float64]

_ANTIALIASED_CUBIC = -0.5  # Keys' parameter in Pillow, and in torch with antialiasing
_INTERPOLATED_CUBIC = -0.75  # Keys' parameter in torch without antialiasing
# Cameras and thumbnails come in few sizes; one cache entry takes two to thirty kilobytes.
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """One axis: output i is the sum over t < counts[i] of weights[t, i] times source pixel starts[i] + t."""

    starts: NDArray[np.int32]  # (outputs,)
    counts: NDArray[np.int32]  # (outputs,)
    weights: NDArray[np.float32]  # (most taps, outputs); weights past counts[i] are 0

    @property
    def first(self) -> int:
        """The first source pixel that any output needs."""
        return int(self.starts.min())

    @property
    def last(self) -> int:
        """The index behind the last source pixel that any output needs."""
        return int((self.starts + self.counts).max())


@lru_cache(_REMEMBERED)
def taps_of(source: int, target: int, first: int, last: int, resample: Resample, antialias: bool) -> Taps:
    """Taps of the outputs `first` to `last` of an axis of `source` pixels resized to `target`."""
    outputs = np.arange(first, last)
    if resample == "nearest":
        return _nearest(outputs, source, target, antialias)
    if not antialias:  # OpenCV's own rounding stays within one level of the plain filter
        return _interpolated(outputs, source, target, "bilinear" if resample == "opencv" else resample)
    return _convolved(outputs, source, target, resample)


def rounds_between(source: tuple[int, int], target: tuple[int, int], resample: Resample, antialias: bool) -> bool:
    """Whether the first pass rounds to bytes. torch without antialiasing keeps fractions between its passes."""
    shrinks = target[0] < source[0] or target[1] < source[1]
    return antialias or resample == "nearest" or (resample == "bilinear" and not shrinks)


def _nearest(outputs: NDArray[np.intp], source: int, target: int, antialias: bool) -> Taps:
    if antialias:  # Pillow takes the pixel under the output's centre
        # Adds steps as Pillow does, because where a centre lies between two pixels the rounding decides.
        steps = np.full(int(outputs[-1]) + 1, source / target)
        steps[0] /= 2
        positions = np.floor(np.cumsum(steps)[outputs])
    else:  # torch takes the pixel at the output's corner, computed in single precision
        positions = np.floor(outputs.astype(np.float32) * (np.float32(source) / np.float32(target)))
    starts = positions.astype(np.int32).clip(0, source - 1)
    return Taps(starts, np.ones(len(starts), np.int32), np.ones((1, len(starts)), np.float32))


def _interpolated(outputs: NDArray[np.intp], source: int, target: int, resample: Resample) -> Taps:
    """Two or four taps around the centre, however much the image shrinks. Beyond the edge, the edge's pixel counts."""
    centres = (outputs + 0.5) * (source / target) - 0.5
    base = np.floor(centres)
    offsets = np.arange(-1, 3) if resample == "bicubic" else np.arange(2)
    distances = np.abs(centres - base - offsets[:, np.newaxis])
    values = _cubic(distances, _INTERPOLATED_CUBIC) if resample == "bicubic" else 1 - distances
    indices = (base + offsets[:, np.newaxis]).astype(np.intp).clip(0, source - 1)
    starts = indices[0]
    weights = np.zeros((len(offsets), len(outputs)))
    np.add.at(weights, (indices - starts, np.arange(len(outputs))), values)
    return _taps(starts, indices[-1] - starts + 1, weights)


def _convolved(outputs: NDArray[np.intp], source: int, target: int, resample: Resample) -> Taps:
    """Taps whose support grows with the downscale factor; weights are normalised over the pixels that exist."""
    radius, kernel = _FILTERS[resample]
    scale = source / target
    stretch = max(scale, 1.0)
    centres = (outputs + 0.5) * scale
    starts = np.floor(centres - radius * stretch + 0.5).astype(np.intp).clip(0, source - 1)
    ends = np.floor(centres + radius * stretch + 0.5).astype(np.intp).clip(1, source)
    counts = np.maximum(ends - starts, 1)
    steps = np.arange(counts.max())[:, np.newaxis]
    weights = np.where(steps < counts, kernel((starts + steps + 0.5 - centres) / stretch), 0.0)
    return _taps(starts, counts, weights / weights.sum(axis=0))


def _taps(starts: NDArray[np.intp], counts: NDArray[np.intp], weights: _Doubles) -> Taps:
    return Taps(starts.astype(np.int32), counts.astype(np.int32), np.ascontiguousarray(weights, np.float32))


def _triangle(x: _Doubles) -> _Doubles:
    values: _Doubles = np.maximum(0.0, 1 - np.abs(x))
    return values


def _cubic(x: _Doubles, a: float) -> _Doubles:
    """The cubic kernel of Keys (Cubic convolution interpolation for digital image processing, 1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: _Doubles) -> _Doubles:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _box(x: _Doubles) -> _Doubles:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _hamming(x: _Doubles) -> _Doubles:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)


_FILTERS: dict[str, tuple[float, Callable[[_Doubles], _Doubles]]] = {  # (radius in pixels of the smaller grid, kernel)
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, lambda x: _cubic(x, _ANTIALIASED_CUBIC)),
    "lanczos": (3.0, _lanczos),
    "box": (0.5, _box),
    "hamming": (1.0, _hamming),
}
