"""Resizes decoded images to the network's input. Promises: one function for training, evaluation and serving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.specs import PreprocessSpec

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the source image lies inside the model input; maps answers back to source pixels."""

    source_width: int
    source_height: int
    left: int  # model pixels; the image covers [left, left + width) x [top, top + height)
    top: int
    width: int
    height: int


def geometry_of(source_width: int, source_height: int, spec: PreprocessSpec) -> Geometry:
    """Placement of a source image under `spec`. A letterboxed side never rounds to nothing."""
    if spec.fit == "stretch":
        return Geometry(source_width, source_height, 0, 0, spec.width, spec.height)
    scale = min(spec.width / source_width, spec.height / source_height)
    width = min(spec.width, max(1, round(source_width * scale)))
    height = min(spec.height, max(1, round(source_height * scale)))
    return Geometry(source_width, source_height, (spec.width - width) // 2, (spec.height - height) // 2, width, height)


def preprocess_into(pixels: UInt8Array, spec: PreprocessSpec, out: UInt8Array) -> Geometry:
    """Resizes `pixels` (h, w, 3) RGB into `out` (spec.height, spec.width, 3), writing every byte of it.

    The resampling is Pillow's separable convolution (antialiased), which torchvision, timm and transformers
    reproduce. The heavy part runs without the GIL.
    """
    height, width = pixels.shape[:2]
    place = geometry_of(width, height, spec)
    window = out[place.top : place.top + place.height, place.left : place.left + place.width]
    if (place.width, place.height) != (spec.width, spec.height):
        out[: place.top] = spec.pad_value
        out[place.top + place.height :] = spec.pad_value
        out[:, : place.left] = spec.pad_value
        out[:, place.left + place.width :] = spec.pad_value
    if (width, height) == (place.width, place.height):
        window[...] = pixels
    else:
        resized = Image.fromarray(pixels).resize((place.width, place.height), _RESAMPLE[spec.resample])
        window[...] = np.asarray(resized)
    return place


def preprocess(pixels: UInt8Array, spec: PreprocessSpec) -> UInt8Array:
    """`preprocess_into` with a fresh output array (spec.height, spec.width, 3)."""
    out = np.empty((spec.height, spec.width, 3), np.uint8)
    preprocess_into(pixels, spec, out)
    return out


def boxes_to_source(boxes: FloatArray, place: Geometry) -> FloatArray:
    """Boxes (n, 4) x1 y1 x2 y2 from model pixels to source pixels, clipped to the image."""
    scale_x = place.source_width / place.width
    scale_y = place.source_height / place.height
    moved = (boxes - np.array([place.left, place.top, place.left, place.top], np.float32)) * np.array(
        [scale_x, scale_y, scale_x, scale_y], np.float32
    )
    limits = np.array([place.source_width, place.source_height] * 2, np.float32)
    clipped: FloatArray = np.clip(moved, 0.0, limits)
    return clipped


def mask_to_source(mask: UInt8Array, place: Geometry) -> UInt8Array:
    """Class mask (model height, model width) to source size, nearest neighbour so that ids stay ids."""
    window = mask[place.top : place.top + place.height, place.left : place.left + place.width]
    if window.shape == (place.source_height, place.source_width):
        return window
    size = (place.source_width, place.source_height)
    return np.asarray(Image.fromarray(window).resize(size, Image.Resampling.NEAREST))
