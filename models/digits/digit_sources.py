"""The digits and photographs that all samples are made of. Each digit instance belongs to exactly one split."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
IntArray = NDArray[np.int64]

_SPLIT_SEED = 20_240_521  # changing it moves digits between splits, so every shipped figure would have to be redone
_LEVELS = 16  # source values 0..16 count the set pixels of 4x4 blocks


class Split(StrEnum):
    """What a digit may be used for; the value is the name in manifests and figures."""

    TRAIN = "train"
    CALIBRATION = "calibration"  # int8 ranges
    TUNING = "tuning"  # every choice made by a metric: model selection, calibrator
    TEST = "test"  # figures only


# Cumulative share of each class; test is what remains.
_SHARES = ((Split.TRAIN, 0.65), (Split.CALIBRATION, 0.71), (Split.TUNING, 0.80), (Split.TEST, 1.0))

# Columns of the photographs (of 640) each split may crop, so that a test background was never trained on.
_PHOTO_COLUMNS = {
    Split.TRAIN: (0, 320),
    Split.CALIBRATION: (320, 480),
    Split.TUNING: (320, 480),
    Split.TEST: (480, 640),
}


@cache
def digit_instances() -> tuple[UInt8Array, IntArray]:
    """All handwritten digits: images (1797, 8, 8) of 0..255 ink, classes (1797,). UCI optical digits, no network."""
    from sklearn.datasets import load_digits  # heavy, and only data generation needs it

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / _LEVELS)).astype(np.uint8)
    classes = bunch.target.astype(np.int64)
    images.flags.writeable = classes.flags.writeable = False
    return images, classes


@cache
def instance_indices(split: Split) -> IntArray:
    """Ascending indices into `digit_instances()` of one split, stratified by class with a fixed seed."""
    _, classes = digit_instances()
    rng = np.random.default_rng(_SPLIT_SEED)
    chosen: list[IntArray] = []
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(classes == digit))
        start = 0
        for name, share in _SHARES:
            stop = round(share * len(members))
            if name is split:
                chosen.append(members[start:stop])
            start = stop
    indices = np.sort(np.concatenate(chosen))
    indices.flags.writeable = False
    return indices


@cache
def instance_digests(split: Split) -> tuple[str, ...]:
    """SHA-256 of each instance's pixels and class, in the order of `instance_indices`; proves splits disjoint."""
    images, classes = digit_instances()
    return tuple(
        hashlib.sha256(images[index].tobytes() + bytes([int(classes[index])])).hexdigest()
        for index in instance_indices(split)
    )


def split_fingerprint(split: Split) -> str:
    """SHA-256 over the split's sorted instance digests: equal exactly when the split holds the same digits."""
    return hashlib.sha256("\n".join(sorted(instance_digests(split))).encode()).hexdigest()


@cache
def photographs(split: Split) -> tuple[UInt8Array, ...]:
    """The part of each sample photograph (height, width, 3) RGB that the split may crop."""
    from sklearn.datasets import load_sample_images  # heavy, and only data generation needs it

    left, right = _PHOTO_COLUMNS[split]
    return tuple(np.ascontiguousarray(image[:, left:right]) for image in load_sample_images().images)
