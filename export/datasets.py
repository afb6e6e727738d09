"""Loads evaluation images. Promises: decoded and resized by the serving code, splits disjoint, contents hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.errors import DataRefused
from export.recipe import DataSpec, DigitScenes, FolderData, LoadedRecipe, Split
from models.digit_scenes import (
    CropSample,
    SceneSample,
    crop_samples,
    instance_digests,
    scene_samples,
)
from models.digit_scenes import Split as SceneSplit
from models.preprocessing import Geometry, UInt8Array, preprocess_into
from models.specs import PreprocessSpec, Task
from service.vision.image_decoder import ImageLimits, decode_image

Sample = CropSample | SceneSample
SampleSource = Callable[[Task, DataSpec, Split], list[Sample]]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSplit:
    """One split, ready for the network. Samples, images and geometries are in the same order."""

    name: Split
    samples: Sequence[Sample]
    images: UInt8Array  # (n, height, width, 3) model input
    geometries: Sequence[Geometry]
    jpeg_sha256: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of all JPEGs, in order."""
        return hashlib.sha256("".join(self.jpeg_sha256).encode()).hexdigest()


@dataclass(slots=True)
class DataStore:
    """Splits loaded so far in this run; variants and models of one run share them."""

    _loaded: dict[str, ImageSplit] = field(default_factory=dict)

    def split(self, loaded: LoadedRecipe, name: Split) -> ImageSplit:
        """Side effect: the first call for a split renders and decodes its images."""
        recipe = loaded.recipe
        kind = "crops" if recipe.task.task is Task.CLASSIFY else "scenes"
        key = f"{kind} {name} {recipe.data.model_dump_json()} {recipe.preprocess.model_dump_json()}"
        if key not in self._loaded:
            if isinstance(recipe.data, FolderData):
                raise DataRefused("data.dataset: folder is not read yet")
            samples = digit_samples(recipe.task.task, recipe.data, name)
            self._loaded[key] = prepare_split(name, samples, recipe.preprocess)
        return self._loaded[key]


def digit_samples(task: Task, data: DigitScenes, name: Split) -> list[Sample]:
    """Samples of the digit scenes: crops for classification, whole scenes for the other tasks."""
    count = data.images[name]
    if task is Task.CLASSIFY:
        return list(crop_samples(SceneSplit(name), data.seed, count))
    return list(scene_samples(SceneSplit(name), data.seed, count))


def prepare_split(name: Split, samples: Sequence[Sample], preprocess: PreprocessSpec) -> ImageSplit:
    """Decodes and resizes with the functions that serve requests."""
    images = np.empty((len(samples), preprocess.height, preprocess.width, 3), np.uint8)
    limits = ImageLimits()
    geometries = [
        preprocess_into(decode_image(sample.jpeg, limits), preprocess, image)
        for sample, image in zip(samples, images, strict=True)
    ]
    digests = tuple(hashlib.sha256(sample.jpeg).hexdigest() for sample in samples)
    return ImageSplit(name, samples, images, geometries, digests)


def ensure_calibration_allowed(calibration: ImageSplit, others: Sequence[ImageSplit], min_images: int) -> None:
    """Raises DataRefused when calibration data is missing, too small, repeated, or shared with another split."""
    count = len(calibration.jpeg_sha256)
    if count < min_images:
        raise DataRefused(f"calibration has {count} images, the recipe asks for at least {min_images}")
    unique = set(calibration.jpeg_sha256)
    if len(unique) < min_images:
        raise DataRefused(f"calibration has {len(unique)} different images among {count}; {min_images} are needed")
    for other in others:
        shared = unique.intersection(other.jpeg_sha256)
        if shared:
            raise DataRefused(
                f"{len(shared)} calibration images are also in split {other.name!r}; figures on it would be flattered"
            )


def ensure_instances_disjoint(first: Split, second: Split) -> None:
    """Raises DataRefused when a handwritten digit occurs in both splits, however it was rendered."""
    shared = set(instance_digests(SceneSplit(first))) & set(instance_digests(SceneSplit(second)))
    if shared:
        raise DataRefused(f"{len(shared)} digits occur in both {first!r} and {second!r}")


def batches(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Consecutive views of at most `size` images."""
    return [images[start : start + size] for start in range(0, len(images), size)]
