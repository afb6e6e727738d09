"""Holds a split of labelled images as network input; samples, images and geometries have the same order."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.labelled_images import Sample
from saccade.export.errors import DataRefused
from saccade.export.qualification.benchmark import usable_threads
from saccade.models.contract.preprocessing import Geometry, UInt8Array, preprocess_into
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import SaccadeError
from saccade.service.vision.image_decoder import USUAL_LIMITS, ImageLimits, decode_image

_IN_MEMORY_BYTES = 1 << 30  # larger splits are mapped from an unnamed file, which the page cache may drop

Split = Literal["calibration", "tuning", "test", "train"]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSplit:
    """One split, ready for the network. Samples, images and geometries are in the same order."""

    name: Split
    samples: Sequence[Sample]
    images: UInt8Array  # (n, height, width, 3) model input
    geometries: Sequence[Geometry]
    image_sha256: tuple[str, ...]  # digests of the decoded pixels, which find copies that were saved with other bytes
    limits: ImageLimits = USUAL_LIMITS  # what the samples were decoded with

    @property
    def sha256(self) -> str:
        """Returns the digest of all images, in order."""
        return hashlib.sha256("".join(self.image_sha256).encode()).hexdigest()

    def first(self, count: int) -> ImageSplit:
        """The first images, as views; the order of a split follows no label."""
        return replace(
            self,
            samples=self.samples[:count],
            images=self.images[:count],
            geometries=self.geometries[:count],
            image_sha256=self.image_sha256[:count],
        )


def prepare_split(name: Split, samples: Sequence[Sample], preprocess: PreprocessSpec) -> ImageSplit:
    """Decodes and resizes with the functions that serve requests. Raises DataRefused for a damaged image."""
    images = _image_array((len(samples), preprocess.height, preprocess.width, 3))
    limits = USUAL_LIMITS.for_network(preprocess)

    def prepare(index: int) -> tuple[Geometry, str]:
        try:
            pixels = decode_image(samples[index].encoded, limits)
            return preprocess_into(pixels, preprocess, images[index]), pixel_digest(pixels).hex()
        except SaccadeError as error:
            raise DataRefused(f"image {index} of split {name!r} would be refused when served: {error}") from error

    with ThreadPoolExecutor(usable_threads(0)) as pool:
        prepared = list(pool.map(prepare, range(len(samples))))
    geometries, digests = [geometry for geometry, _ in prepared], tuple(digest for _, digest in prepared)
    return ImageSplit(name, samples, images, geometries, digests, limits)


def pixel_digest(pixels: UInt8Array) -> bytes:
    """Hashes a decoded picture and its shape, so that comments or extra bytes in its file do not matter."""
    digest = hashlib.sha256(np.array(pixels.shape, np.int64).tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _image_array(shape: tuple[int, int, int, int]) -> UInt8Array:
    if int(np.prod(shape, dtype=np.int64)) <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping stays valid after the file is closed
        return np.memmap(file, np.uint8, "w+", shape=shape)


def batches(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Returns consecutive views of at most `size` images."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def batch_of(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Returns the first `size` images, repeated from the start when the split is smaller."""
    return np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))
