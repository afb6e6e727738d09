"""Loads evaluation images. Promises: decoded and resized by the serving code, splits disjoint, contents hashed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from export.digit_data import digit_samples, ensure_instances_disjoint
from export.errors import DataRefused
from export.folder_data import folder_samples
from export.image_split import ImageSplit, Split
from export.labelled_images import Sample
from export.qualification.benchmark import usable_threads
from export.recipe import FolderData, LoadedRecipe
from models.preprocessing import Geometry, UInt8Array, preprocess_into
from models.specs import PreprocessSpec
from service.errors import SaccadeError
from service.vision.image_decoder import ImageLimits, decode_image

_IN_MEMORY_BYTES = 1 << 30  # larger splits lie in a file without a name, which the page cache keeps as it can


@dataclass(slots=True)
class DataStore:
    """Splits loaded so far in this run; variants and models of one run share them."""

    _loaded: dict[str, ImageSplit] = field(default_factory=dict)

    def split(self, loaded: LoadedRecipe, name: Split) -> ImageSplit:
        """Side effect: the first call for a split reads or renders its images and decodes them."""
        recipe = loaded.recipe
        # Equal keys mean equal images and truth: ids depend on the labels, a folder's place on the recipe's.
        parts = (recipe.task.task.value, name, recipe.data, recipe.preprocess, recipe.labels, loaded.path.parent)
        key = repr(parts)
        if key not in self._loaded:
            self._loaded[key] = prepare_split(name, labelled_images(loaded, name), recipe.preprocess)
        return self._loaded[key]


def labelled_images(loaded: LoadedRecipe, name: Split) -> list[Sample]:
    """The split's encoded images with their truth. Raises DataRefused."""
    recipe = loaded.recipe
    if isinstance(recipe.data, FolderData):
        root = loaded.beside(recipe.data.path)
        return folder_samples(recipe.task.task, recipe.labels, recipe.data, root, name)[0]
    if name == "calibration":
        ensure_instances_disjoint("calibration", "test")
    return digit_samples(recipe.task, recipe.labels, recipe.data, name)


def prepare_split(name: Split, samples: Sequence[Sample], preprocess: PreprocessSpec) -> ImageSplit:
    """Decodes and resizes with the functions that serve requests. Raises DataRefused for a damaged image."""
    images = _image_array((len(samples), preprocess.height, preprocess.width, 3))
    limits = ImageLimits()

    def prepare(index: int) -> Geometry:
        try:
            return preprocess_into(decode_image(samples[index].encoded, limits), preprocess, images[index])
        except SaccadeError as error:
            raise DataRefused(f"image {index} of split {name!r} would be refused when served: {error}") from error

    with ThreadPoolExecutor(usable_threads(0)) as pool:
        geometries = list(pool.map(prepare, range(len(samples))))
    digests = tuple(hashlib.sha256(sample.encoded).hexdigest() for sample in samples)
    return ImageSplit(name, samples, images, geometries, digests)


def _image_array(shape: tuple[int, int, int, int]) -> UInt8Array:
    if int(np.prod(shape, dtype=np.int64)) <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the descriptor
        return np.memmap(file, np.uint8, "w+", shape=shape)


def calibration_split(data: DataStore, loaded: LoadedRecipe) -> ImageSplit:
    """Raises DataRefused when the images are missing, too few, repeated or shared with a split that is measured."""
    calibration, tuning, test = (data.split(loaded, name) for name in ("calibration", "tuning", "test"))
    ensure_calibration_allowed(calibration, [tuning, test], loaded.recipe.calibration.min_images)
    return calibration


def ensure_calibration_allowed(calibration: ImageSplit, others: Sequence[ImageSplit], min_images: int) -> None:
    """Raises DataRefused when calibration data is missing, too small, repeated, or shared with another split."""
    count = len(calibration.image_sha256)
    if count < min_images:
        raise DataRefused(f"calibration has {count} images, the recipe asks for at least {min_images}")
    unique = set(calibration.image_sha256)
    if len(unique) < min_images:
        raise DataRefused(f"calibration has {len(unique)} different images among {count}; {min_images} are needed")
    for other in others:
        shared = unique.intersection(other.image_sha256)
        if shared:
            raise DataRefused(
                f"{len(shared)} calibration images are also in split {other.name!r}; figures on it would be flattered"
            )
