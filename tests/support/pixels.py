"""Makes pictures for tests of resizing, and resizes and compares them with Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from saccade.models.contract.preprocessing import UInt8Array
from saccade.models.contract.specs import Resample

FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def noise(width: int, height: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(width: int, height: int) -> UInt8Array:
    """Draws soft waves with some noise; like photographs, they rarely have 0 beside 255."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9 + channel) + np.cos(y / 7 - channel) for channel in range(3)], axis=2)
    sensor = np.random.default_rng(3).normal(0, 6, (height, width, 1))
    pixels: UInt8Array = (128 + 40 * waves + sensor).clip(0, 255).astype(np.uint8)
    return pixels


def difference(ours: UInt8Array, theirs: UInt8Array) -> int:
    """Returns the largest difference between two pictures, in levels of 0..255."""
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


def resized_by_pillow(pixels: UInt8Array, size: tuple[int, int], resample: Resample) -> UInt8Array:
    return np.asarray(Image.fromarray(pixels).resize(size, FILTERS[resample]))
