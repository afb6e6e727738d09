"""Top-1 and mIoU, made of per-image parts so that a bootstrap can resample images; without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def top1_correct(scores: NDArray[np.floating], class_ids: IntArray) -> BoolArray:
    """Whether each image's best class is right (n,). scores: (n, classes), any monotone score; class_ids: (n,)."""
    correct: BoolArray = scores.argmax(1) == class_ids
    return correct


def top1(correct: BoolArray) -> float:
    return float(correct.mean())


def confusion_matrix(predicted: NDArray[np.integer], truth: NDArray[np.integer], classes: int) -> IntArray:
    """Pixel counts (classes, classes) of one or more masks: row = truth, column = predicted."""
    pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mean_iou(confusion: IntArray) -> float:
    """Mean over classes of intersection over union, from confusion matrices summed over images.

    Background counts as a class; a class that occurs in neither truth nor prediction does not count.
    """
    hits = np.diagonal(confusion).astype(np.float64)
    unions = confusion.sum(0) + confusion.sum(1) - hits
    present = unions > 0
    return float((hits[present] / unions[present]).mean()) if present.any() else 0.0


def scores_by_label(answer: Sequence[NDArray[np.number]]) -> FloatArray:
    """Returns the scores (n, labels) in the labels' order; the answer lists all labels, best first."""
    scores, class_ids = answer
    result = np.zeros(scores.shape)
    np.put_along_axis(result, class_ids.astype(np.int64), scores.astype(np.float64), axis=1)
    return result
