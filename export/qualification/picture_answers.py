"""Compares our answers to pictures with another library's, and counts each of its boxes as matched or missing.

Boxes are in source pixels. The limits are those below which a client would not see a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from saccade.export.data.outlines import outline_of_coco
from saccade.export.errors import DataRefused
from saccade.models.contract.run_lengths import RunLengths
from saccade.models.contract.run_lengths import overlaps as mask_overlaps
from saccade.models.contract.specs import TaskSpec
from saccade.models.metrics.picture_quality import near_levels, psnr

SAME_IOU = 0.99
SAME_SCORE = 0.01
SAME_MASK_IOU = 0.98
SAME_DIRECTION = 1e-3  # what the cosine may lack to 1; pixels that are resized otherwise by a level cost less
_COCO_KEYS = {"images", "annotations", "categories"}
_LEAST_IOU = 0.5  # smallest overlap of boxes that show the same object
_SAME_PLACE = 0.1  # pixels; boxes without area have no overlap to measure


@dataclass(frozen=True, slots=True, eq=False)
class PictureBoxes:
    """Detections of one picture, in any order."""

    boxes: NDArray[np.float64]  # (n, 4) x1 y1 x2 y2
    scores: NDArray[np.float64]  # (n,)
    class_ids: NDArray[np.int64]  # (n,)
    masks: tuple[RunLengths, ...] | None = None  # one per box
    cut_at: float = 0.0  # score of the last box of an answer that holds no more of them

    def from_score(self, threshold: float) -> PictureBoxes:
        seen = self.scores >= threshold
        masks = None if self.masks is None else tuple(compress(self.masks, seen))
        return PictureBoxes(self.boxes[seen], self.scores[seen], self.class_ids[seen], masks, self.cut_at)


@dataclass(frozen=True, slots=True)
class PictureClass:
    """The first class of one picture; the score is None when the other side did not keep it."""

    class_id: int
    score: float | None


@dataclass(frozen=True, slots=True)
class PictureLabels:
    """Every label that one picture is said to show."""

    class_ids: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class PictureVector:
    """The vector of one picture, of length 1."""

    values: NDArray[np.float32]  # (dim,)


@dataclass(frozen=True, slots=True, eq=False)
class MadePicture:
    """The picture that a network made of one picture, on the network's input."""

    values: NDArray[np.float32]  # (height, width) or (height, width, 3), 0 to 1; depths in any unit
    task: TaskSpec


PictureMask = NDArray[np.uint8]  # (height, width) class ids
PictureAnswer = PictureBoxes | PictureClass | PictureLabels | PictureVector | PictureMask | MadePicture


@dataclass(frozen=True, slots=True)
class PictureDifference:
    """How one picture's answers differ, in boxes, pictures, pixels or numbers, depending on the task."""

    name: str
    theirs: int
    same: int  # how many of theirs we have too; boxes need SAME_IOU and SAME_SCORE, their masks SAME_MASK_IOU
    surplus: (
        int  # how many of ours they lack, not counting scores close to the threshold or to the last of a full answer
    )
    worst_iou: float  # smallest overlap of matched boxes
    worst_score: float  # largest difference of scores, or of the numbers of a made picture
    worst_mask_iou: float | None = None  # smallest overlap of matched masks; None: no masks
    ours: int | None = None  # number of our boxes from the threshold on; None: no boxes
    psnr: float | None = None  # dB, of a made picture of colours or greys


def difference(name: str, ours: PictureAnswer, theirs: PictureAnswer, threshold: float) -> PictureDifference:
    """Compares two answers. Raises DataRefused when they are not answers to the same task."""
    match ours, theirs:
        case PictureBoxes(), PictureBoxes():
            return _box_difference(name, ours, theirs, threshold)
        case PictureClass(), PictureClass():
            gap = 0.0 if theirs.score is None or ours.score is None else abs(ours.score - theirs.score)
            return PictureDifference(name, 1, int(ours.class_id == theirs.class_id), 0, 1.0, gap)
        case PictureLabels(), PictureLabels():
            same = len(ours.class_ids & theirs.class_ids)
            return PictureDifference(name, len(theirs.class_ids), same, len(ours.class_ids) - same, 1.0, 0.0)
        case PictureVector(), PictureVector():
            gap = 1.0 - float(np.dot(ours.values.astype(np.float64), theirs.values.astype(np.float64)))
            return PictureDifference(name, 1, int(gap <= SAME_DIRECTION), 0, 1.0, max(gap, 0.0))
        case MadePicture(), MadePicture():
            return _made_difference(name, ours, theirs)
        case np.ndarray(), np.ndarray():
            if ours.shape != theirs.shape:
                raise DataRefused(f"{name}: their mask is {theirs.shape} (height, width), ours {ours.shape}")
            return PictureDifference(name, ours.size, int((ours == theirs).sum()), 0, 1.0, 0.0)
        case _:
            raise DataRefused(f"{name}: their answer is {type(theirs).__name__}, ours {type(ours).__name__}")


def _made_difference(name: str, ours: MadePicture, theirs: MadePicture) -> PictureDifference:
    """Numbers are the same within two 255ths of the range, as in the gate's `levels`."""
    if ours.values.shape != theirs.values.shape:
        raise DataRefused(f"{name}: their picture is {theirs.values.shape} (height, width), ours {ours.values.shape}")
    same = round(near_levels(ours.values, theirs.values, ours.task) * ours.values.size)
    gap = float(np.abs(ours.values - theirs.values).max())
    level = None if ours.task.picture == "depth" else psnr(ours.values, theirs.values)
    return PictureDifference(name, ours.values.size, same, 0, 1.0, gap, psnr=level)


def agreement_share(differences: list[PictureDifference]) -> float:
    """Returns the share of their answers that ours have too; our surplus lowers it."""
    whole = sum(each.theirs + each.surplus for each in differences)
    return sum(each.same for each in differences) / whole if whole else 1.0


def _box_difference(name: str, ours: PictureBoxes, theirs: PictureBoxes, threshold: float) -> PictureDifference:
    # A score near the threshold may fall on either side of it, so ours are taken from slightly below.
    ours, theirs = ours.from_score(threshold - SAME_SCORE), theirs.from_score(threshold)
    overlaps = _overlaps(ours, theirs)
    masks = None
    if theirs.masks is not None:
        if ours.masks is None:
            raise DataRefused(f"{name}: their answer has a mask per object, and ours has none")
        masks = mask_overlaps(ours.masks, theirs.masks)
    # Among equal overlaps the nearest score wins, so that twins of one object are paired correctly.
    gaps = np.abs(ours.scores[:, None] - theirs.scores[None, :])
    order = np.argsort(-(overlaps.round(3) - 1e-4 * gaps), axis=None)
    left, right = set(range(len(ours.scores))), set(range(len(theirs.scores)))
    same, worst_iou, worst_score, worst_mask = 0, 1.0, 0.0, 1.0
    for mine, other in zip(*np.unravel_index(order, overlaps.shape), strict=True):
        if overlaps[mine, other] < _LEAST_IOU:
            break
        if mine in left and other in right:
            left.remove(mine)
            right.remove(other)
            overlap, gap = float(overlaps[mine, other]), float(gaps[mine, other])
            mask = 1.0 if masks is None else float(masks[mine, other])
            same += overlap >= SAME_IOU and gap <= SAME_SCORE and mask >= SAME_MASK_IOU
            worst_iou, worst_score, worst_mask = min(worst_iou, overlap), max(worst_score, gap), min(worst_mask, mask)
    edge = max(threshold, ours.cut_at)  # theirs may have been cut at a box that ours have not
    surplus = sum(bool(ours.scores[mine] > edge + SAME_SCORE) for mine in left)
    return PictureDifference(
        name,
        len(theirs.scores),
        same,
        surplus,
        worst_iou,
        worst_score,
        None if masks is None else worst_mask,
        len(ours.scores),
    )


def _overlaps(ours: PictureBoxes, theirs: PictureBoxes) -> NDArray[np.float64]:
    """Returns the IoU (ours, theirs) of boxes of one class; 1 for boxes at the same place."""
    left, right = ours.boxes[:, None], theirs.boxes[None, :]
    sides = np.clip(np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2]), 0, None)
    shared = sides.prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (left, right)]
    overlaps = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    overlaps = np.where(np.abs(left - right).max(-1) <= _SAME_PLACE, 1.0, overlaps)
    result: NDArray[np.float64] = np.where(ours.class_ids[:, None] == theirs.class_ids[None, :], overlaps, 0.0)
    return result


def read_answers(
    path: Path,
    file_names: Mapping[int, str],
    class_ids: Mapping[int, int],
    labels: tuple[str, ...],
    *,
    has_masks: bool = False,
) -> dict[str, PictureAnswer]:
    """Reads COCO results, a list of `{image_id or file_name, category_id, bbox, score}`, a whole COCO file whose
    annotations have scores, or labels by file name, several of one picture as a list.

    file_names: names by COCO's image id; class_ids: our class ids by COCO's category id; a whole file brings its own of
    both. has_masks: every result needs
    a `segmentation`, which is not looked at otherwise. Raises DataRefused for anything else.
    """
    document = answers_document(path)
    told = "the data's annotations.json does not know" if file_names else "no annotations.json of the data names"
    if isinstance(document, dict) and document.keys() >= _COCO_KEYS:
        document, file_names, class_ids = _whole_coco(path, document, labels)
        told = "its own `images` and `categories` do not know"
    if isinstance(document, dict):
        return {str(name): _classes_of(str(name), value, labels) for name, value in document.items()}
    rows: dict[str, list[tuple[list[float], float, int]]] = {}
    masks: dict[str, list[RunLengths]] = {}
    for row in document:
        name = row.get("file_name") or file_names.get(row.get("image_id"))
        category = row.get("category_id")
        if name is None or class_ids.get(category) is None:
            what = f"image_id {row.get('image_id')!r}" if name is None else f"category_id {category!r}"
            instead = "`file_name` beside it" if name is None else f"one of {', '.join(map(str, sorted(class_ids)))}"
            raise DataRefused(f"{path} has {what}, which {told}; write {instead}")
        x, y, width, height = (float(value) for value in row["bbox"])
        rows.setdefault(Path(name).name, []).append(
            ([x, y, x + width, y + height], float(row["score"]), class_ids[category])
        )
        if has_masks:
            masks.setdefault(Path(name).name, []).append(_mask_of(path, row))
    return {name: picture_boxes(found, masks.get(name)) for name, found in rows.items()}


def answers_document(path: Path) -> Any:
    """Reads a file of answers and says whether it can be one. Raises DataRefused; needs neither recipe nor network."""
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataRefused(f"cannot read the answers in {path}: {error}") from error
    is_whole = isinstance(document, dict) and document.keys() >= _COCO_KEYS
    if isinstance(document, dict) and not is_whole:
        return document  # labels by file name, which need the recipe's
    rows = document["annotations"] if is_whole else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "bbox" in row for row in rows):
        raise DataRefused(f"{path} holds neither COCO results (a list with `bbox`) nor labels by file name")
    if any(row.get("score") is None for row in rows):
        raise DataRefused(f"{path} has boxes without `score`: these are labels, and answers have one per box")
    return document


def _whole_coco(
    path: Path, document: dict[str, Any], labels: tuple[str, ...]
) -> tuple[Any, dict[int, str], dict[int, int]]:
    """Returns the annotations of a whole file, file names by image id and our class ids by category id.

    Raises DataRefused for a category that is no label of the recipe, and for a file that is not COCO's.
    """
    try:
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        categories = {each["id"]: str(each["name"]) for each in document["categories"]}
    except (KeyError, TypeError) as error:
        raise DataRefused(
            f"{path} is no COCO file: `images` need id and file_name, `categories` id and name"
        ) from error
    rows = document["annotations"]
    used = {row.get("category_id") for row in rows}
    strange = [name for number, name in categories.items() if number in used and name not in labels]
    if strange:
        raise DataRefused(f"{path} has the category {strange[0]!r}, which is no label of the recipe: {_few(labels)}")
    return rows, names, {number: labels.index(name) for number, name in categories.items() if name in labels}


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")


def _mask_of(path: Path, row: dict[str, Any]) -> RunLengths:
    """Raises DataRefused for a mask that is no run lengths."""
    outline = outline_of_coco(msgspec.Raw(orjson.dumps(row.get("segmentation"))))
    if outline is None or outline.runs is None:
        raise DataRefused(f"{path} has a `segmentation` that is no run lengths: write COCO's RLE of the whole picture")
    return outline.runs


def picture_boxes(
    rows: list[tuple[list[float], float, int]], masks: Sequence[RunLengths] | None = None
) -> PictureBoxes:
    """Makes boxes from (corners, score, class id) per box, and their masks."""
    boxes = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float64)
    ids = np.array([row[2] for row in rows], np.int64)
    return PictureBoxes(boxes, scores, ids, None if masks is None else tuple(masks))


def _classes_of(name: str, value: Any, labels: tuple[str, ...]) -> PictureClass | PictureLabels:
    """Reads one class, or a list of all labels that the picture shows."""
    if isinstance(value, list):
        return PictureLabels(frozenset(_class_of(name, each, labels).class_id for each in value))
    return _class_of(name, value, labels)


def _class_of(name: str, value: Any, labels: tuple[str, ...]) -> PictureClass:
    """Reads a label, a class id, or `{label, score}`."""
    score = value.get("score") if isinstance(value, dict) else None
    named = value.get("label") if isinstance(value, dict) else value
    if isinstance(named, str) and named in labels:
        return PictureClass(labels.index(named), score)
    if isinstance(named, int) and 0 <= named < len(labels):
        return PictureClass(named, score)
    raise DataRefused(f"{name}: {named!r} is no label of the recipe ({_few(labels)}) and no class id")
