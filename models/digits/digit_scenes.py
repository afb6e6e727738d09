"""Digit scenes: labelled JPEGs for all three tasks. Equal (split, seed, index) give equal bytes and truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.random import Generator
from numpy.typing import NDArray

from saccade.models.contract.specs import PreprocessSpec
from saccade.models.digits.backgrounds import background
from saccade.models.digits.digit_sources import (
    IntArray,
    Split,
    UInt8Array,
    digit_instances,
    instance_digests,
    instance_indices,
    split_fingerprint,
)
from saccade.models.digits.digit_strokes import MASK_COVERAGE, FloatArray, paint, random_pose, stroke_coverage

__all__ = [
    "CLASS_NAMES",
    "CROP_PREPROCESS",
    "CROP_SIZE",
    "SCENE_PREPROCESS",
    "SCENE_SIZE",
    "SEGMENT_CLASS_NAMES",
    "CropSample",
    "SceneSample",
    "Split",
    "crop_sample",
    "crop_samples",
    "decode_rgb",
    "instance_digests",
    "instance_indices",
    "scene_sample",
    "scene_samples",
    "split_fingerprint",
]

CROP_SIZE = 64  # pixels, square
SCENE_SIZE = 256
CLASS_NAMES = tuple(str(digit) for digit in range(10))
SEGMENT_CLASS_NAMES = ("background", *CLASS_NAMES)  # mask value 0, and d + 1 for digit d
CROP_PREPROCESS = PreprocessSpec(width=CROP_SIZE, height=CROP_SIZE, fit="stretch")
SCENE_PREPROCESS = PreprocessSpec(width=SCENE_SIZE, height=SCENE_SIZE, fit="letterbox")

_SPLIT_CODES = {Split.TRAIN: 0, Split.CALIBRATION: 1, Split.TUNING: 2, Split.TEST: 3}
_MAX_DIGITS = 6
_MIN_DIGIT_PX, _MAX_DIGIT_PX = 44.0, 116.0
_MAX_BOX_OVERLAP = 0.08  # of the smaller box, so that every digit stays recognisable
_PLACE_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class CropSample:
    """A 64x64 JPEG of one digit."""

    jpeg: bytes
    class_id: int
    box: tuple[float, float, float, float]  # x1 y1 x2 y2, tight, pixels


@dataclass(frozen=True, slots=True, eq=False)
class SceneSample:
    """A 256x256 JPEG of one to six digits. Boxes are tight around each digit's visible mask pixels."""

    jpeg: bytes
    boxes: NDArray[np.float32]  # (n, 4) x1 y1 x2 y2, pixels; x2 and y2 are the right and lower edges
    class_ids: IntArray  # (n,) 0..9
    owners: UInt8Array  # (256, 256) 0 background, k + 1 for the k-th digit

    @property
    def mask(self) -> UInt8Array:
        """(256, 256) 0 background, d + 1 for digit d."""
        return np.array([0, *(self.class_ids + 1)], np.uint8)[self.owners]


def crop_sample(split: Split, seed: int, index: int) -> CropSample:
    rng = np.random.default_rng((seed, _SPLIT_CODES[split], index, CROP_SIZE))
    pixels = background(rng, CROP_SIZE, split).copy()
    coverage, class_id = _random_digit(rng, split, float(rng.uniform(36.0, 54.0)), CROP_SIZE)
    height, width = coverage.shape
    jitter_x, jitter_y = rng.integers(-5, 6, 2).tolist()
    left = min(max((CROP_SIZE - width) // 2 + jitter_x, 0), CROP_SIZE - width)
    top = min(max((CROP_SIZE - height) // 2 + jitter_y, 0), CROP_SIZE - height)
    paint(rng, pixels, coverage, left, top)
    return CropSample(_jpeg(rng, pixels), class_id, (left, top, left + width, top + height))


def scene_sample(split: Split, seed: int, index: int) -> SceneSample:
    rng = np.random.default_rng((seed, _SPLIT_CODES[split], index, SCENE_SIZE))
    pixels = background(rng, SCENE_SIZE, split).copy()
    owners = np.zeros((SCENE_SIZE, SCENE_SIZE), np.uint8)  # 0 background, k + 1 for the k-th digit
    class_ids: list[int] = []
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(int(rng.integers(1, _MAX_DIGITS + 1))):
        size_px = float(np.exp(rng.uniform(np.log(_MIN_DIGIT_PX), np.log(_MAX_DIGIT_PX))))
        coverage, class_id = _random_digit(rng, split, size_px, SCENE_SIZE)
        place = _free_place(rng, coverage.shape[1], coverage.shape[0], taken)
        if place is None:
            continue
        left, top, right, bottom = place
        paint(rng, pixels, coverage, left, top)
        class_ids.append(class_id)
        taken.append(place)
        owners[top:bottom, left:right][coverage >= MASK_COVERAGE] = len(class_ids)
    boxes = np.stack([_visible_box(owners, number, place) for number, place in enumerate(taken, start=1)])
    return SceneSample(_jpeg(rng, pixels), boxes, np.array(class_ids, np.int64), owners)


def crop_samples(split: Split, seed: int, count: int, start: int = 0) -> Iterator[CropSample]:
    return (crop_sample(split, seed, index) for index in range(start, start + count))


def scene_samples(split: Split, seed: int, count: int, start: int = 0) -> Iterator[SceneSample]:
    return (scene_sample(split, seed, index) for index in range(start, start + count))


def decode_rgb(jpeg: bytes) -> UInt8Array:
    """Pixels (h, w, 3) RGB, decoded by the library that serving uses."""
    pixels: UInt8Array = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    return pixels


def _random_digit(rng: Generator, split: Split, size_px: float, limit_px: int) -> tuple[FloatArray, int]:
    images, classes = digit_instances()
    index = int(rng.choice(instance_indices(split)))
    coverage = stroke_coverage(images[index], random_pose(rng, size_px))
    return coverage[:limit_px, :limit_px], int(classes[index])


def _free_place(
    rng: Generator, width: int, height: int, taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """A random x1 y1 x2 y2 that hardly overlaps what is taken, or None after a few attempts."""
    for _ in range(_PLACE_ATTEMPTS):
        left = int(rng.integers(0, SCENE_SIZE - width + 1))
        top = int(rng.integers(0, SCENE_SIZE - height + 1))
        place = (left, top, left + width, top + height)
        if all(_overlap(place, other) <= _MAX_BOX_OVERLAP for other in taken):
            return place
    return None


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller of the two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / min(areas)


def _visible_box(owners: UInt8Array, number: int, place: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Tight box of what later digits left visible of digit `number`."""
    left, top, right, bottom = place
    visible = owners[top:bottom, left:right] == number
    rows = np.flatnonzero(visible.any(1))
    columns = np.flatnonzero(visible.any(0))
    return np.array([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1], np.float32)


def _jpeg(rng: Generator, pixels: UInt8Array) -> bytes:
    quality = int(rng.integers(80, 96))
    subsampling = "420" if rng.random() < 0.7 else "444"
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorspace="RGB", colorsubsampling=subsampling
    )
    return encoded
