"""Loads evaluation images, decoded and resized by the serving code, and refuses splits that share images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from saccade.export.data.digit_data import digit_samples, ensure_instances_disjoint
from saccade.export.data.findings import Findings
from saccade.export.data.folder_data import folder_samples, split_sources
from saccade.export.data.image_split import ImageSplit, Split, prepare_split
from saccade.export.data.labelled_images import Sample
from saccade.export.errors import CalibrationTooSmall, DataRefused
from saccade.export.recipe import DigitScenes, FolderData, LoadedRecipe
from saccade.service.vision.image_decoder import USUAL_LIMITS


@dataclass(slots=True)
class DataStore:
    """Keeps the splits loaded so far in this run, for all its variants and models."""

    _loaded: dict[str, ImageSplit] = field(default_factory=dict)

    def split(self, loaded: LoadedRecipe, name: Split) -> ImageSplit:
        """Returns a split. Side effect: the first call for a split reads or renders its images and decodes them."""
        recipe = loaded.recipe
        # Equal keys mean equal images and truth, because ids depend on the labels and a folder's path on the recipe's.
        parts = (
            recipe.task.task.value,
            recipe.task.multi_label,
            (recipe.task.picture, recipe.task.scale),
            name,
            recipe.data,
            recipe.preprocess,
            recipe.labels,
            recipe.gate.needs_labels,
            loaded.path.parent,
        )
        key = repr(parts)
        if key not in self._loaded:
            self._loaded[key] = prepare_split(name, labelled_images(loaded, name), recipe.preprocess)
        return self._loaded[key]


def labelled_images(loaded: LoadedRecipe, name: Split) -> list[Sample]:
    """Returns the split's encoded images with their truth. Raises DataRefused."""
    recipe = loaded.recipe
    if isinstance(recipe.data, FolderData):
        root = loaded.beside(recipe.data.path)
        return folder_samples(
            recipe.task.task,
            recipe.labels,
            recipe.data,
            root,
            name,
            limits=USUAL_LIMITS.for_network(recipe.preprocess),
            multi_label=recipe.task.multi_label,
            needs_labels=recipe.gate.needs_labels,
            spec=recipe.task,
        )[0]
    if name == "calibration":
        ensure_instances_disjoint("calibration", "test")
    return digit_samples(recipe.task, recipe.labels, recipe.data, name)


def has_split(loaded: LoadedRecipe, name: Split) -> bool:
    """Tells whether the data has pictures for an optional split, such as `train`. Raises DataRefused."""
    recipe = loaded.recipe
    if isinstance(recipe.data, DigitScenes):
        return name in recipe.data.images
    return name in split_sources(recipe.task.task, recipe.labels, loaded.beside(recipe.data.path), Findings())


def calibration_split(data: DataStore, loaded: LoadedRecipe) -> ImageSplit:
    """Loads the calibration split. Raises DataRefused when images are missing, too few, repeated or also measured."""
    calibration, tuning, test = (data.split(loaded, name) for name in ("calibration", "tuning", "test"))
    _ensure_disjoint(tuning, test)
    ensure_calibration_allowed(calibration, [tuning, test], loaded.recipe.calibration.min_images)
    return calibration


def ensure_calibration_allowed(calibration: ImageSplit, others: Sequence[ImageSplit], min_images: int) -> None:
    """Raises DataRefused when calibration data is shared with another split, and CalibrationTooSmall."""
    for other in others:
        _ensure_disjoint(calibration, other)
    count, different = len(calibration.image_sha256), len(set(calibration.image_sha256))
    if different < min_images:
        among = "" if different == count else f"different ones among {count} "
        raise CalibrationTooSmall(
            f"calibration has {different} {among}images, the recipe asks for at least {min_images}: add some, or set "
            f"`calibration: {{min_images: {different}}}`"
        )


def _ensure_disjoint(first: ImageSplit, second: ImageSplit) -> None:
    shared = set(first.image_sha256).intersection(second.image_sha256)
    if shared:
        raise DataRefused(
            f"{len(shared)} {first.name} images are also in split {second.name!r}; figures on it would be flattered"
        )
