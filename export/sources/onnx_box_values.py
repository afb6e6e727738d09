"""Decides what the numbers of boxes show; a claim must hold for nearly all boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AGREEING = 0.98  # share of boxes that must be what they claim
_SUM_SLACK = 1e-2  # of a sum of many probabilities in float16
_LARGEST_SCORE = 30.0  # raw scores stay below it, and positions in pixels do not


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
    return bool(is_share.any() and (np.abs(scores).max((0, 1)) > _LARGEST_SCORE).any())


def sum_to_one(values: NDArray[Any], axis: int) -> bool:
    """Whether each row is a choice among several: not negative, with the sum 1."""
    if not values.size or values.shape[axis] < 2 or values.min() < 0:
        return False
    return bool(np.abs(values.astype(np.float64).sum(axis) - 1.0).max() <= _SUM_SLACK)
