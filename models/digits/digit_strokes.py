"""Draws one handwritten digit at any size, as coverage in 0..1, cropped to the drawn pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from saccade.models.digits.digit_sources import UInt8Array

FloatArray = NDArray[np.float32]

MASK_COVERAGE = 0.5  # a pixel belongs to the digit from this coverage on; boxes and masks both use it
_BORDER = 2  # cells of empty ground around the 8x8 source, so that bicubic interpolation fades out
_RAMP_PX = 1.5  # width of a stroke's soft edge
_MIN_LUMINANCE_GAP = 85.0  # of 255; with less, thin strokes on texture stop being readable for a person
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class Pose:
    """The size, shape and weight with which a digit is drawn."""

    size_px: float  # height of the 8 source rows
    rotation_deg: float
    shear: float  # horizontal shift per unit of height
    aspect: float  # width over height, relative to the source
    ink_level: float  # source ink (0..1) where the stroke's edge lies; lower is bolder


def random_pose(rng: Generator, size_px: float) -> Pose:
    return Pose(
        size_px=size_px,
        rotation_deg=float(rng.uniform(-15.0, 15.0)),
        shear=float(rng.uniform(-0.15, 0.15)),
        aspect=float(rng.uniform(0.9, 1.2)),
        ink_level=float(rng.uniform(0.34, 0.46)),
    )


def stroke_coverage(source: UInt8Array, pose: Pose) -> FloatArray:
    """Coverage (h, w) of the digit `source` (8, 8), tight around pixels of at least MASK_COVERAGE.

    Bicubic enlargement followed by a steep ramp at the ink level gives smooth edges about one pixel wide.
    """
    side = 8 + 2 * _BORDER
    padded = np.zeros((side, side), np.uint8)
    padded[_BORDER:-_BORDER, _BORDER:-_BORDER] = source
    canvas = int(pose.size_px * 1.55) + 4  # holds the rotated square at the widest aspect
    angle = np.deg2rad(pose.rotation_deg)
    # Output pixel -> source cell: inverse of rotate · shear · scale, about both centres.
    forward = (
        np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        @ np.array([[1.0, pose.shear], [0.0, 1.0]])
        @ np.diag([pose.aspect, 1.0])
        * (pose.size_px / 8.0)
    )
    inverse = np.linalg.inv(forward)
    offset = side / 2 - inverse @ np.full(2, canvas / 2)
    coefficients = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    enlarged = Image.fromarray(padded).transform(
        (canvas, canvas), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    slope = pose.size_px / 8.0 / _RAMP_PX  # a stroke's ink rises over about one source cell
    ink = np.asarray(enlarged, np.float32) * np.float32(1 / 255)
    coverage: FloatArray = np.clip((ink - np.float32(pose.ink_level)) * np.float32(slope) + 0.5, 0.0, 1.0)
    return _tight(coverage)


def _tight(coverage: FloatArray) -> FloatArray:
    drawn = coverage >= MASK_COVERAGE
    rows = np.flatnonzero(drawn.any(1))
    columns = np.flatnonzero(drawn.any(0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def paint(rng: Generator, pixels: UInt8Array, coverage: FloatArray, left: int, top: int) -> None:
    """Blends the digit into `pixels` (h, w, 3) in place, in a colour readable on what lies under it."""
    height, width = coverage.shape
    window = pixels[top : top + height, left : left + width]
    colour = _readable_colour(rng, window)
    alpha = coverage[..., None]
    window[...] = np.rint(window * (1 - alpha) + colour * alpha).astype(np.uint8)


def _readable_colour(rng: Generator, ground: UInt8Array) -> FloatArray:
    luminance = ground[::2, ::2] @ _LUMA
    mean = float(luminance.mean())
    gap = max(_MIN_LUMINANCE_GAP, 2.0 * float(luminance.std()))
    candidates = rng.integers(0, 256, (12, 3)).astype(np.float32)
    readable = candidates[np.abs(candidates @ _LUMA - mean) >= gap]
    if len(readable):
        chosen: FloatArray = readable[0]
        return chosen
    return np.full(3, 0.0 if mean > 127.5 else 255.0, np.float32)
