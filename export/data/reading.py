"""Reads every picture once, as the server would, with a bounded number of decoded pictures in memory.

Results keep the order of the pictures. A picture is reduced to its size, the digest of its pixels, a thumbnail and the
facts of its truth; an unreadable one becomes a fault.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.bad_boxes import WrongForm
from saccade.export.data.image_split import pixel_digest
from saccade.export.data.labelled_images import IGNORED
from saccade.export.data.nearest_pictures import THUMBNAIL_SIDE
from saccade.export.data.outlines import Size
from saccade.export.data.picture_pairs import PairTruth, can_judge, may_be_unturned
from saccade.export.data.pictures import (
    BoxTruth,
    ClassTruth,
    LabelsTruth,
    MaskTruth,
    Picture,
    UnlabelledTruth,
    fitting_mask,
)
from saccade.export.errors import DataRefused
from saccade.export.qualification.benchmark import usable_threads
from saccade.service.errors import SaccadeError
from saccade.service.vision.image_decoder import ImageLimits, decode_image

_AHEAD_PER_THREAD = 4  # decoded pictures that may wait per thread, so that memory does not grow with the set
_SAMPLED_SIDE = 128


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a picture cannot be used; faults of one kind are reported once."""

    kind: str
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class PictureFacts:
    path: Path
    first_byte: int  # first byte of the file's SHA-256, which assigns it to a split of an undivided set
    size: Size
    pixels_sha256: bytes
    thumbnail: NDArray[np.uint8]  # (16, 16, 3)
    class_ids: NDArray[np.int64]  # classes of the objects, or those that occur in the mask
    class_counts: NDArray[np.int64]  # number of objects or pixels of each class
    crowds: int = 0
    unlabelled: int = 0  # mask pixels that nobody labelled
    bad_boxes: int = 0  # boxes that are impossible in the picture
    first_bad: str = ""  # where the first of them is written
    reaching_boxes: int = 0  # boxes that reach out of the picture
    first_reaching: str = ""
    forms: Mapping[WrongForm, int] = field(default_factory=dict)  # number of boxes that fit each wrong form
    is_turn_unsure: bool = False  # its target fits whether or not it was turned as the picture was


def read_pictures(pictures: Iterable[Picture], limits: ImageLimits) -> Iterator[PictureFacts | Fault]:
    """Yields facts in the order of the pictures, which are decoded on all cores."""
    with ThreadPoolExecutor(usable_threads(0)) as pool:
        waiting: deque[Future[PictureFacts | Fault]] = deque()
        most = usable_threads(0) * _AHEAD_PER_THREAD
        for picture in pictures:
            if len(waiting) == most:
                yield waiting.popleft().result()
            waiting.append(pool.submit(_facts_or_fault, picture, limits))
        while waiting:
            yield waiting.popleft().result()


def _facts_or_fault(picture: Picture, limits: ImageLimits) -> PictureFacts | Fault:
    try:
        encoded = picture.path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Fault("missing", f"{picture.path!s} cannot be read ({reason}): restore it, or remove its entry")
    try:
        pixels = decode_image(encoded, limits)
    except SaccadeError as error:
        return Fault("undecodable", f"{picture.path} would be refused when served: {error}")
    try:
        return _facts(picture, encoded, pixels, limits)
    except DataRefused as error:
        return Fault(f"truth {type(picture.truth).__name__}", str(error))


def _facts(picture: Picture, encoded: bytes, pixels: NDArray[np.uint8], limits: ImageLimits) -> PictureFacts:
    """Collects the facts of one picture. Raises DataRefused when the truth contradicts the picture."""
    size = (pixels.shape[1], pixels.shape[0])
    crowds = unlabelled = bad_boxes = reaching_boxes = 0
    first_bad = first_reaching = ""
    forms: Mapping[WrongForm, int] = {}
    is_turn_unsure = False
    match picture.truth:
        case ClassTruth(class_id):
            ids, counts = np.array([class_id]), np.array([1])
        case LabelsTruth(class_ids):
            ids, counts = np.array(class_ids, np.int64), np.ones(len(class_ids), np.int64)
        case BoxTruth() as truth:
            _ensure_declared(picture.path, truth, size)
            bad, forms = truth.impossible(size), truth.fitting_forms(size)
            truth.masks(picture.path, size, ~bad)  # raises for one that does not fit
            reaching = truth.reaching(size) & ~bad
            crowds, bad_boxes, reaching_boxes = int(truth.is_crowd.sum()), int(bad.sum()), int(reaching.sum())
            first_bad = _first_place(picture.path, truth, bad)
            first_reaching = _first_place(picture.path, truth, reaching)
            ids, counts = np.unique(truth.class_ids[~truth.is_crowd & ~bad], return_counts=True)
        case PairTruth() as truth:
            sample = truth.sample(picture.path, encoded, size, limits)  # raises for a target that does not fit
            ids = np.zeros(int(can_judge(sample, truth.spec, limits)), np.int64)
            counts = np.ones(len(ids), np.int64)
            is_turn_unsure = not limits.ignores_exif and may_be_unturned(sample, size)
        case UnlabelledTruth():
            ids = counts = np.zeros(0, np.int64)
        case MaskTruth() as truth:
            values, counts = np.unique(fitting_mask(picture.path, truth, size), return_counts=True)
            is_class = values < truth.classes if truth.classes <= IGNORED else np.ones(len(values), np.bool_)
            ids, unlabelled, counts = values[is_class], int(counts[~is_class].sum()), counts[is_class]
    return PictureFacts(
        picture.path,
        hashlib.sha256(encoded).digest()[0],
        size,
        pixel_digest(pixels),
        _thumbnail(pixels),
        ids.astype(np.int64),
        counts.astype(np.int64),
        crowds,
        unlabelled,
        bad_boxes,
        first_bad,
        reaching_boxes,
        first_reaching,
        forms,
        is_turn_unsure,
    )


def _first_place(path: Path, truth: BoxTruth, chosen: NDArray[np.bool_]) -> str:
    """Says where the first chosen box is, empty without one."""
    if not chosen.any():
        return ""
    place = truth.place_of(int(chosen.argmax()))
    return f"in {path}" + (f" ({place})" if place else "")


def _ensure_declared(path: Path, truth: BoxTruth, size: Size) -> None:
    if truth.declared in (None, size):
        return
    declared = "x".join(f"{side:g}" for side in truth.declared or ())
    turned = " after its orientation, so boxes may lie on the unturned one" if truth.declared == size[::-1] else ""
    raise DataRefused(
        f"{path} is {size[0]}x{size[1]}{turned}, and its annotations say {declared}: annotate the picture as it is "
        "shown, or correct its width and height"
    )


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrinks every n-th row and column, at least 128 of each where there are as many: 64 pixels for each of ours."""
    height, width = (max(1, side // _SAMPLED_SIDE) for side in pixels.shape[:2])
    sampled = np.ascontiguousarray(pixels[::height, ::width])
    sides = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(sampled).resize(sides, Image.Resampling.BILINEAR, reducing_gap=2.0))
