"""A split of labelled images, ready for the network. Promises: samples, pixels and places are in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.labelled_images import Sample
from models.preprocessing import Geometry, UInt8Array

Split = Literal["calibration", "tuning", "test", "train"]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSplit:
    """One split, ready for the network. Samples, images and geometries are in the same order."""

    name: Split
    samples: Sequence[Sample]
    images: UInt8Array  # (n, height, width, 3) model input
    geometries: Sequence[Geometry]
    image_sha256: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of all encoded images, in order."""
        return hashlib.sha256("".join(self.image_sha256).encode()).hexdigest()


def batches(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Consecutive views of at most `size` images."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def batch_of(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The first `size` images, repeated from the start when the split is smaller."""
    return np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))
