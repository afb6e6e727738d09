"""Decides what the numbers of boxes show; a claim must hold for nearly all boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AGREEING = 0.98  # share of boxes that must be what they claim
_SUM_SLACK = 1e-2  # of a sum of many probabilities in float16
_LARGEST_ANGLE = 7.0  # radians, a turn and some
_INSIDE = 0.9  # correlation of keypoints with the centres of their boxes
_BEYOND = 1.1  # of the picture; corners that reach further are of its other side
_FEWEST = 20  # rows that show a correlation
LARGEST_SCORE = 30.0  # raw scores stay below it, and positions in pixels do not


def is_end2end(values: NDArray[Any] | None, *, is_declared: bool = False) -> bool:
    """Rows of x1 y1 x2 y2 score class; values: (pictures, rows, 6). Declared ones may hold rows of no box."""
    if values is None or not values.size:
        return True
    ids, scores = values[..., 5], values[..., 4]
    is_ordered = np.mean((values[..., 2] >= values[..., 0]) & (values[..., 3] >= values[..., 1])) >= AGREEING
    in_range = bool(scores.min() >= 0.0 and scores.max() <= 1.0)
    return bool(in_range and (is_ordered or is_declared) and np.all(ids == np.round(ids)) and ids.min() >= -1)


def have_no_area(boxes: NDArray[Any]) -> bool:
    """Whether all boxes are points, so that their numbers show neither corners nor units."""
    return bool(np.ptp(boxes, axis=-1).max(initial=0.0) == 0.0)


def are_unordered(boxes: NDArray[Any]) -> bool:
    """Whether most boxes (..., 4) are no corners: the second lies left of the first, or above it."""
    is_ordered = (boxes[..., 2] >= boxes[..., 0]) & (boxes[..., 3] >= boxes[..., 1])
    return bool(is_ordered.size and is_ordered.mean() < 0.5)


def has_logarithmic_sizes(values: NDArray[Any] | None) -> bool:
    return values is not None and bool(np.mean(values[..., 2:4] < 0) > 1.0 - AGREEING)


def is_class_first(values: NDArray[Any]) -> bool:
    """Rows of class score x1 y1 x2 y2, as PaddleDetection writes them; values: (pictures, rows, 6)."""
    return values.shape[-1] == 6 and values.size > 0 and is_end2end(np.roll(values, -2, -1)[..., [0, 1, 2, 3, 5, 4]])


def holds_positions(scores: NDArray[Any]) -> bool:
    """Whether some columns are scores in 0..1 and others reach as far as pixels do, as keypoints behind scores.

    scores: (pictures, rows, columns).
    """
    if not scores.size:
        return False
    least, most = scores.min((0, 1)), scores.max((0, 1))
    is_share = (least >= 0.0) & (most <= 1.0)
    return bool(is_share.any() and (np.abs(scores).max((0, 1)) > LARGEST_SCORE).any())


def ends_in_angle(scores: NDArray[Any]) -> bool:
    """Whether all columns but the last are scores in 0..1, and the last leaves it, as the angle of rotated boxes does.

    scores: (pictures, rows, columns).
    """
    if not scores.size or scores.shape[2] < 2:
        return False
    least, most = scores.min((0, 1)), scores.max((0, 1))
    is_share = (least >= 0.0) & (most <= 1.0)
    if are_whole(scores[..., -1]):  # a class number
        return False
    return bool(is_share[:-1].all() and not is_share[-1] and max(-least[-1], most[-1]) <= _LARGEST_ANGLE)


def follow_boxes(rows: NDArray[Any]) -> bool:
    """Whether pairs of columns behind the boxes go with the boxes' own places, as relative keypoints do.

    rows: (pictures, rows, columns).
    """
    found = rows.reshape(-1, rows.shape[2]).astype(np.float64)
    if len(found) < _FEWEST or (found[:, :2].std(0) == 0).any():
        return False
    tail = found[:, 4:]
    tail = tail[:, tail.std(0) > 0]
    if tail.shape[1] < 2:
        return False
    likeness = np.corrcoef(found[:, :2].T, tail.T)[:2, 2:]
    return bool((likeness >= _INSIDE).any(1).all())


def are_whole(values: NDArray[Any]) -> bool:
    return bool(values.dtype.kind in "iub" or np.all(values == np.round(values)))


def order_of_axes(boxes: NDArray[Any], places: NDArray[Any], size: tuple[int, int] | None) -> str:
    """Returns "xy" or "yx" where corners show it, by the cells that their centres follow or by how far they reach.

    Empty: nothing shows it. boxes: (pictures, rows, 4) corners in pixels or shares; places: (rows, 2) x y of the cell
    of each row, empty where rows are no cells; size: (width, height) in the boxes' pixels, None for shares.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]).reshape(-1, 2).astype(np.float64)
    if len(places) and len(places) * len(boxes) == len(centres) and (centres.std(0) > 0).all():
        cells = np.tile(places.astype(np.float64), (len(boxes), 1))
        likeness = np.corrcoef(centres.T, cells.T)[:2, 2:]
        straight, swapped = likeness.diagonal().min(), likeness[::-1].diagonal().min()
        if abs(straight - swapped) > _INSIDE - 0.5 and max(straight, swapped) >= 0.5:
            return "xy" if straight > swapped else "yx"
    if size is None:
        return ""
    reach = boxes.reshape(-1, 2, 2).max((0, 1)) / np.array(size)
    mirrored = boxes.reshape(-1, 2, 2).max((0, 1)) / np.array(size[::-1])
    if (reach.max() <= _BEYOND) != (mirrored.max() <= _BEYOND):
        return "xy" if reach.max() <= _BEYOND else "yx"
    return ""


def sum_to_one(values: NDArray[Any], axis: int) -> bool:
    """Whether each row is a choice among several: not negative, with the sum 1."""
    if not values.size or values.shape[axis] < 2 or values.min() < 0:
        return False
    return bool(np.abs(values.astype(np.float64).sum(axis) - 1.0).max() <= _SUM_SLACK)
