"""Measures how far two answers agree, in the task's own terms: shares that are 1.0 for equal answers.

Classifiers are compared by their first class, or by F1 of the labels that reach the threshold, and detectors by the
boxes that a client would get, matched greedily by overlap. Segmenters are compared by masks and by their boundaries,
after Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, arXiv 2103.16562, whose band
is 2 % of the image's diagonal wide. Embedders are compared by the cosine of their vectors, and by the pictures that
each finds nearest to a picture of the set. Pictures and depths are compared number by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.run_lengths import overlaps as mask_overlaps
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.kept_answers import masks_of
from saccade.models.metrics.metrics import scores_by_label
from saccade.models.metrics.picture_quality import near_levels
from saccade.models.metrics.retrieval import nearest_rows

Agreement = Literal[
    "top1", "labels", "box_f1", "box_iou", "mask_iou", "pixels", "boundary_iou", "cosine", "neighbours", "levels"
]
MIN_BOX_IOU = 0.5
BAND_SHARE = 0.02  # share of the image's diagonal
NEIGHBOURS = 10  # pictures of a list that a search would show
_IMAGES_AT_ONCE = 32  # images that are compared at once, which limits the memory

Arrays = Sequence[NDArray[Any]]  # one array per output tensor of the task, rows are images
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


def answer_agreement(found: Arrays, expected: Arrays, task: TaskSpec, classes: int) -> dict[Agreement, float]:
    """Returns named shares between 0 and 1; both answers are to the same images in the same order."""
    match task.task:
        case Task.CLASSIFY if task.multi_label:
            left, right = (scores_by_label(each) >= task.score_threshold for each in (found, expected))
            answered = int(left.sum() + right.sum())
            return {"labels": _share(2.0 * int((left & right).sum()), answered, empty=1.0)}
        case Task.CLASSIFY:
            return {"top1": float((found[1][:, 0] == expected[1][:, 0]).mean())}
        case Task.DETECT:
            return _box_agreement(found, expected, task.score_threshold)
        case Task.INSTANCES:
            boxes = _box_agreement(found[:4], expected[:4], task.score_threshold)
            return boxes | {"mask_iou": _instance_agreement(found, expected, task.score_threshold)}
        case Task.SEGMENT:
            return _mask_agreement(found[0], expected[0], classes)
        case Task.EMBED:
            return _vector_agreement(found[0], expected[0])
        case Task.IMAGE:
            shares = [near_levels(*pair, task) for pair in zip(found[0], expected[0], strict=True)]
            return {"levels": float(np.mean(shares))}


def _box_agreement(found: Arrays, expected: Arrays, score_threshold: float) -> dict[Agreement, float]:
    """Returns F1 over all boxes that reach the serving threshold, and the mean overlap of those that match."""
    matches, overlap, boxes = 0, 0.0, 0
    for start in range(0, len(found[0]), _IMAGES_AT_ONCE):
        rows = slice(start, start + _IMAGES_AT_ONCE)
        left, right = (_served([array[rows] for array in side], score_threshold) for side in (found, expected))
        taken = _greedy_overlaps(_overlaps(left, right))
        matches, overlap = matches + len(taken), overlap + float(taken.sum())
        boxes += int(left[2].sum() + right[2].sum())
    return {
        "box_f1": 2 * matches / boxes if boxes else 1.0,
        "box_iou": _share(overlap, matches, empty=float(not boxes)),
    }


def _instance_agreement(found: Arrays, expected: Arrays, score_threshold: float) -> float:
    """Returns the mean IoU of masks of one class that overlap most, over all masks that a client gets; 1 for none."""
    total, objects = 0.0, 0
    for row in range(len(found[0])):
        left, right = (np.flatnonzero(each[1][row, : each[3][row]] >= score_threshold) for each in (found, expected))
        overlaps = np.array(mask_overlaps(masks_of(found, row, left), masks_of(expected, row, right)), np.float64)
        overlaps[found[2][row, left][:, None] != expected[2][row, right]] = 0.0
        total += float(overlaps.max(0, initial=0.0).sum() + overlaps.max(1, initial=0.0).sum())
        objects += len(left) + len(right)
    return _share(total, objects, empty=1.0)


def _served(answer: Arrays, score_threshold: float) -> tuple[FloatArray, NDArray[np.int64], BoolArray]:
    """Returns boxes (n, k, 4), class ids (n, k) and which rows a client would see (n, k), with the smallest k."""
    boxes, scores, class_ids, counts = answer
    seen = (scores >= score_threshold) & (np.arange(scores.shape[1]) < counts[:, None])
    order = np.argsort(~seen, axis=1, kind="stable")[:, : max(1, int(seen.sum(1).max(initial=0)))]
    return (
        np.take_along_axis(boxes, order[:, :, None], 1).astype(np.float64),
        np.take_along_axis(class_ids, order, 1).astype(np.int64),
        np.take_along_axis(seen, order, 1),
    )


def _overlaps(
    found: tuple[FloatArray, NDArray[np.int64], BoolArray], expected: tuple[FloatArray, NDArray[np.int64], BoolArray]
) -> FloatArray:
    """Returns the IoU (n, k, m) of every pair of one class; 0 for rows that a client does not see."""
    left, right = found[0][:, :, None], expected[0][:, None]
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    intersection = np.clip(sides, 0.0, None).prod(-1)
    areas = [np.clip(boxes[..., 2:] - boxes[..., :2], 0.0, None).prod(-1) for boxes in (left, right)]
    overlaps = intersection / np.maximum(areas[0] + areas[1] - intersection, 1e-9)
    is_pair = (found[1][:, :, None] == expected[1][:, None]) & found[2][:, :, None] & expected[2][:, None]
    result: FloatArray = np.where(is_pair, overlaps, 0.0)
    return result


def _greedy_overlaps(overlaps: FloatArray) -> FloatArray:
    """Pairs boxes, largest overlap first, each once, down to MIN_BOX_IOU; returns the overlaps (pairs,)."""
    images, _, columns = overlaps.shape
    rows = np.arange(images)
    left = overlaps.copy()
    taken: list[FloatArray] = [np.zeros(0)]
    for _ in range(min(overlaps.shape[1:])):
        best = left.reshape(images, -1).argmax(1)
        first, second = best // columns, best % columns
        values = left[rows, first, second]
        good = values >= MIN_BOX_IOU
        if not good.any():
            break
        taken.append(values[good])
        left[rows[good], first[good], :] = 0.0
        left[rows[good], :, second[good]] = 0.0
    return np.concatenate(taken)


def _mask_agreement(found: NDArray[Any], expected: NDArray[Any], classes: int) -> dict[Agreement, float]:
    """Returns mean IoU of masks and of boundaries over classes, and the share of equal pixels, over all images."""
    counts = np.zeros((4, classes))  # rows: mask intersection, mask union, boundary intersection, boundary union
    for start in range(0, len(found), _IMAGES_AT_ONCE):
        left, right = found[start : start + _IMAGES_AT_ONCE], expected[start : start + _IMAGES_AT_ONCE]
        width = band_width(*left.shape[1:])
        for class_id in range(classes):
            pair = left == class_id, right == class_id
            if not (pair[0].any() or pair[1].any()):
                continue
            bands = boundary_band(pair[0], width), boundary_band(pair[1], width)
            counts[:, class_id] += [each.sum() for one, other in (pair, bands) for each in (one & other, one | other)]
    occurs, has_band = counts[1] > 0, counts[3] > 0
    return {
        "mask_iou": float((counts[0][occurs] / counts[1][occurs]).mean()) if occurs.any() else 1.0,
        "pixels": float((found == expected).mean()),
        "boundary_iou": float((counts[2][has_band] / counts[3][has_band]).mean()) if has_band.any() else 1.0,
    }


def _vector_agreement(found: NDArray[Any], expected: NDArray[Any]) -> dict[Agreement, float]:
    """Returns the mean cosine, and of several pictures the mean share of nearest ones that both sides name."""
    cosine = float(np.clip(np.einsum("nd,nd->n", found, expected, dtype=np.float64), 0.0, 1.0).mean())
    if len(found) <= NEIGHBOURS:  # all pictures would be neighbours on both sides
        return {"cosine": cosine}
    left, right = (nearest_rows(vectors, NEIGHBOURS) for vectors in (found, expected))
    shared = (left[:, :, None] == right[:, None, :]).any(2).mean()
    return {"cosine": cosine, "neighbours": float(shared)}


def band_width(height: int, width: int) -> int:
    """Returns the width of the boundary band in pixels, at least one."""
    return max(1, round(BAND_SHARE * float(np.hypot(height, width))))


def boundary_band(masks: BoolArray, width: int) -> BoolArray:
    """Returns the pixels of each mask (n, h, w) within `width` of its edge; the image border counts too (paper)."""
    padded = np.pad(masks, ((0, 0), (width, width), (width, width)))
    inside = _all_within(_all_within(padded, 1, 2 * width + 1), 2, 2 * width + 1)
    band: BoolArray = masks & ~inside
    return band


def _all_within(masks: BoolArray, axis: int, window: int) -> BoolArray:
    """Tells for every window that fits whether all its elements are true, by doubling the window's size."""
    reached = 1
    while reached < window:
        step = min(reached, window - reached)
        length = masks.shape[axis] - step
        first, second = (
            masks[:, rows] if axis == 1 else masks[:, :, rows]
            for rows in (slice(0, length), slice(step, step + length))
        )
        masks, reached = first & second, reached + step
    return masks


def _share(part: float, whole: int, empty: float) -> float:
    return part / whole if whole else empty
