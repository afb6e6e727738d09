"""Defines images with their truth; class ids are indices of the recipe's labels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.run_lengths import RunLengths

IGNORED = 255  # mask value of unlabelled pixels, which no metric counts


@dataclass(frozen=True, slots=True)
class ClassSample:
    """An encoded image (JPEG, PNG, WebP or BMP) with its class."""

    encoded: bytes
    class_id: int
    is_labelled: bool = True  # false: nobody said what it shows, and class_id stands for nothing
    box: tuple[float, float, float, float] | None = None  # x1 y1 x2 y2 of what it shows, where that is known


@dataclass(frozen=True, slots=True)
class LabelsSample:
    """An encoded image with every label that it shows, in ascending order; it may show none."""

    encoded: bytes
    class_ids: tuple[int, ...]

    def is_shown(self, classes: int) -> NDArray[np.bool_]:
        """Tells of each label whether the image shows it, (classes,)."""
        shown = np.zeros(classes, np.bool_)
        shown[list(self.class_ids)] = True
        return shown


@dataclass(frozen=True, slots=True, eq=False)
class DetectSample:
    encoded: bytes
    boxes: NDArray[np.floating]  # (n, 4) x1 y1 x2 y2, source pixels
    class_ids: NDArray[np.int64]  # (n,)
    # (n,) marks boxes around many objects, as COCO's iscrowd; None means none are crowds
    is_crowd: NDArray[np.bool_] | None = None
    masks: tuple[RunLengths, ...] | None = None  # one per box, for detectors with masks

    @property
    def object_ids(self) -> NDArray[np.int64]:
        """Returns the classes of single objects, without crowds."""
        return self.class_ids if self.is_crowd is None else self.class_ids[~self.is_crowd]

    @property
    def object_masks(self) -> tuple[RunLengths, ...]:
        """Returns the masks of single objects; none where there are no masks."""
        masks = self.masks or ()
        return masks if self.is_crowd is None else tuple(itertools.compress(masks, ~self.is_crowd))


@dataclass(frozen=True, slots=True, eq=False)
class SegmentSample:
    encoded: bytes
    mask: NDArray[np.uint8]  # (height, width) of the image; IGNORED where unlabelled


@dataclass(frozen=True, slots=True)
class ImageSample:
    """An encoded image with the picture that should be made of it, as the bytes of a file; empty where nobody knows."""

    encoded: bytes
    target: bytes


Sample = ClassSample | LabelsSample | DetectSample | SegmentSample | ImageSample
