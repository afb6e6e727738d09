"""Sample sets decoded into memory. Pixels went through serving's preprocessing; order is the sample index."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import preprocess
from saccade.models.digits.digit_scenes import (
    CROP_PREPROCESS,
    SCENE_PREPROCESS,
    Split,
    crop_samples,
    decode_rgb,
    scene_samples,
)
from saccade.models.digits.digit_sources import IntArray, UInt8Array

MAX_BOXES = 8  # rows of padded truth; a scene holds at most six digits
_Part = TypeVar("_Part")
_CHUNK = 250  # samples per unit of work; about 50 MB of scene pixels travel back at once


@dataclass(frozen=True, slots=True, eq=False)
class CropSet:
    images: UInt8Array  # (n, 64, 64, 3) RGB
    class_ids: IntArray  # (n,)


@dataclass(frozen=True, slots=True, eq=False)
class SceneSet:
    images: UInt8Array  # (n, 256, 256, 3) RGB
    masks: UInt8Array  # (n, 256, 256) 0 background, d + 1 for digit d
    boxes: NDArray[np.float32]  # (n, MAX_BOXES, 4) x1 y1 x2 y2; rows past the count are 0
    class_ids: IntArray  # (n, MAX_BOXES); rows past the count are -1

    def counts(self) -> IntArray:
        """Digits per scene (n,)."""
        counts: IntArray = (self.class_ids >= 0).sum(1)
        return counts


def crop_set(split: Split, seed: int, count: int) -> CropSet:
    parts = _in_processes(_crop_chunk, split, seed, count)
    return CropSet(np.concatenate([part.images for part in parts]), np.concatenate([part.class_ids for part in parts]))


def scene_set(split: Split, seed: int, count: int) -> SceneSet:
    parts = _in_processes(_scene_chunk, split, seed, count)
    return SceneSet(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.masks for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
    )


def _in_processes(chunk: Callable[[Split, int, int, int], _Part], split: Split, seed: int, count: int) -> list[_Part]:
    """Chunks of samples in order, drawn by one process per core when there is enough to share."""
    starts = range(0, count, _CHUNK)
    sizes = [min(_CHUNK, count - start) for start in starts]
    if len(sizes) < 4:
        return [chunk(split, seed, size, start) for start, size in zip(starts, sizes, strict=True)]
    # spawn: forking a process in which torch has started threads may deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 8), context) as pool:
        jobs = [pool.submit(chunk, split, seed, size, start) for start, size in zip(starts, sizes, strict=True)]
        return [job.result() for job in jobs]


def _crop_chunk(split: Split, seed: int, count: int, start: int) -> CropSet:
    samples = list(crop_samples(split, seed, count, start))
    images = np.stack([preprocess(decode_rgb(sample.jpeg), CROP_PREPROCESS) for sample in samples])
    return CropSet(images, np.array([sample.class_id for sample in samples], np.int64))


def _scene_chunk(split: Split, seed: int, count: int, start: int) -> SceneSet:
    samples = list(scene_samples(split, seed, count, start))
    boxes = np.zeros((count, MAX_BOXES, 4), np.float32)
    class_ids = np.full((count, MAX_BOXES), -1, np.int64)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.boxes)] = sample.boxes
        class_ids[row, : len(sample.boxes)] = sample.class_ids
    images = np.stack([preprocess(decode_rgb(sample.jpeg), SCENE_PREPROCESS) for sample in samples])
    return SceneSet(images, np.stack([sample.mask for sample in samples]), boxes, class_ids)
