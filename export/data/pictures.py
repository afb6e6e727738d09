"""Describes a picture file and its truth before it is read; class ids follow the recipe's labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.bad_boxes import WrongForm
from saccade.export.data.labelled_images import (
    IGNORED,
    ClassSample,
    DetectSample,
    ImageSample,
    LabelsSample,
    Sample,
    SegmentSample,
)
from saccade.export.data.outlines import Outline, Size
from saccade.export.data.picture_pairs import PairTruth
from saccade.export.errors import DataRefused
from saccade.models.contract.run_lengths import RunLengths
from saccade.models.contract.specs import Task
from saccade.service.vision.image_decoder import USUAL_LIMITS, ImageLimits

_SLACK_PIXELS = 2.0  # rounding lets boxes reach this far out of a picture, or this share of its side, if that is more
_SLACK_SHARE = 0.05
_LEAST_PIXELS = 0.99  # a side of one pixel, as fractions with few digits give it


@dataclass(frozen=True, slots=True)
class ClassTruth:
    class_id: int


@dataclass(frozen=True, slots=True)
class LabelsTruth:
    class_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BoxTruth:
    """Boxes x1 y1 x2 y2 (n, 4), in pixels or as fractions of the picture's sides."""

    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    in_shares: bool = False
    declared: Size | None = None  # size of the picture according to the annotations
    outlines: tuple[Outline, ...] | None = None  # one per box, for detectors with masks
    file: str = ""  # what the boxes are written in, such as "labels/a.txt, line"
    entries: tuple[int | None, ...] = ()  # numbers of the boxes in it

    def in_pixels(self, size: Size) -> NDArray[np.float64]:
        return self.boxes * np.array([*size, *size], np.float64) if self.in_shares else self.boxes

    def masks(self, path: Path, size: Size, kept: NDArray[np.bool_]) -> tuple[RunLengths, ...] | None:
        """Masks of the kept boxes; None where there are no outlines. Raises DataRefused naming the picture."""
        if self.outlines is None:
            return None
        try:
            return tuple(each.mask(size, in_shares=self.in_shares) for each in compress(self.outlines, kept))
        except DataRefused as error:
            raise DataRefused(f"{path}: {error}") from error

    def within(self, size: Size) -> NDArray[np.float64]:
        """Returns the boxes in pixels, cut off at the picture's border."""
        result: NDArray[np.float64] = self.in_pixels(size).clip(0.0, np.array([*size, *size], np.float64))
        return result

    def impossible(self, size: Size) -> NDArray[np.bool_]:
        """Tells which boxes show less than a pixel of the picture, or reach out of it by more than its side, (n,)."""
        boxes, visible, sides = self.in_pixels(size), self.within(size), np.array(size, np.float64)
        tiny = visible[:, 2:] - visible[:, :2] < _LEAST_PIXELS
        far = (boxes[:, :2] < -sides) | (boxes[:, 2:] > 2 * sides)
        return np.asarray((tiny | far).any(1), np.bool_)

    def reaching(self, size: Size) -> NDArray[np.bool_]:
        """Tells which boxes reach further out of the picture than rounding does, (n,)."""
        boxes, sides = self.in_pixels(size), np.array(size, np.float64)
        slack = np.maximum(_SLACK_PIXELS, _SLACK_SHARE * sides)
        return np.asarray(((boxes[:, :2] < -slack) | (boxes[:, 2:] > sides + slack)).any(1), np.bool_)

    def place_of(self, index: int) -> str:
        """Says where a box is written; empty where nobody knows."""
        return f"{self.file} {self.entries[index]}" if self.entries else ""

    def fitting_forms(self, size: Size) -> dict[WrongForm, int]:
        """Returns how many boxes, as the file writes them, would make sense in each form that is often confused."""
        extents = self.boxes[:, 2:] - self.boxes[:, :2]
        places = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 if self.in_shares else self.boxes[:, :2]
        most = np.ones(2) if self.in_shares else np.array(size, np.float64)
        corners = int(((places >= 0) & (extents > places) & (extents <= most * 1.001 + 1e-6)).all(1).sum())
        if self.in_shares:
            return {"corners in fractions": corners}
        fractions = int(((places >= 0) & (places <= 1.001) & (extents <= 1.001)).all(1).sum())
        return {"fractions": fractions, "corners": corners}


@dataclass(frozen=True, slots=True)
class MaskTruth:
    path: Path
    classes: int

    def mask(self) -> NDArray[np.uint8]:
        """Reads the mask (height, width). Raises DataRefused when the file is no mask of these classes."""
        try:
            with Image.open(self.path, formats=("PNG",)) as image:
                mode, mask = image.mode, np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataRefused(f"{self.path} cannot be read as PNG ({error}): save the mask again") from error
        if mode not in ("L", "P"):
            raise DataRefused(f"{self.path} is {mode}; masks are 8-bit PNG with one class id per pixel")
        strange = mask[(mask >= self.classes) & (mask != IGNORED)]
        if strange.size:
            raise DataRefused(
                f"{self.path} has class id {int(strange[0])}, the recipe has {self.classes} labels: write ids 0 to "
                f"{self.classes - 1}, or {IGNORED} for pixels that nobody labelled"
            )
        return mask


@dataclass(frozen=True, slots=True)
class UnlabelledTruth:
    """What is not known of a picture: its sample has no object, no label and no labelled pixel."""

    task: Task
    multi_label: bool = False

    def sample(self, encoded: bytes, size: Size) -> Sample:
        match self.task:
            case Task.CLASSIFY | Task.EMBED:
                return LabelsSample(encoded, ()) if self.multi_label else ClassSample(encoded, 0, is_labelled=False)
            case Task.DETECT | Task.INSTANCES:
                masks = () if self.task is Task.INSTANCES else None
                no_ids = np.zeros(0, np.int64)
                return DetectSample(encoded, np.zeros((0, 4)), no_ids, np.zeros(0, np.bool_), masks)
            case Task.SEGMENT:
                return SegmentSample(encoded, np.full(size[::-1], IGNORED, np.uint8))
            case Task.IMAGE:
                return ImageSample(encoded, b"")


@dataclass(frozen=True, slots=True)
class Picture:
    path: Path
    truth: ClassTruth | LabelsTruth | BoxTruth | MaskTruth | PairTruth | UnlabelledTruth

    def sample(self, encoded: bytes, size: Size, limits: ImageLimits = USUAL_LIMITS) -> Sample:
        """Builds the sample. Raises DataRefused when a mask or a target cannot be read or does not fit."""
        match self.truth:
            case ClassTruth(class_id):
                return ClassSample(encoded, class_id)
            case LabelsTruth(class_ids):
                return LabelsSample(encoded, class_ids)
            case BoxTruth():
                kept = ~self.truth.impossible(size)
                boxes = self.truth.within(size)[kept]
                masks = self.truth.masks(self.path, size, kept)
                return DetectSample(encoded, boxes, self.truth.class_ids[kept], self.truth.is_crowd[kept], masks)
            case UnlabelledTruth():
                return self.truth.sample(encoded, size)
            case PairTruth():
                return self.truth.sample(self.path, encoded, size, limits)
            case MaskTruth():
                return SegmentSample(encoded, fitting_mask(self.path, self.truth, size))


def fitting_mask(path: Path, truth: MaskTruth, size: Size) -> NDArray[np.uint8]:
    """Reads the mask. Raises DataRefused with both sizes when it does not have the upright picture's size."""
    mask = truth.mask()
    found = (mask.shape[1], mask.shape[0])
    if found != size:
        turned = " (as it lies in the file, before its orientation)" if found == size[::-1] else ""
        raise DataRefused(
            f"{truth.path} is {found[0]}x{found[1]}{turned} and its picture {path} is {size[0]}x{size[1]}: save a mask "
            "of the upright picture's size"
        )
    return mask
