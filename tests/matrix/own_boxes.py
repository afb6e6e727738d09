"""Decodes a trained detector's rows as its package does, and holds the published boxes to them. NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.support.onnx_files import corners_of, overlap, suppressed

_STRIDES = (8, 16, 32)  # of YOLOX
_LEAST_IOU = 0.99
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDecoding:
    """What the package's code does behind the file: its layout, its suppression, and the score that it cuts at."""

    layout: Literal["yolox", "yolov8"]
    iou: float
    per_class: bool
    threshold: float


def decoded(
    rows: FloatArray, own: OwnDecoding, size: tuple[int, int]
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Returns corners in pixels of the network's input, scores and classes, best first. size: (width, height)."""
    if own.layout == "yolov8":  # (4 + classes, anchors)
        rows = rows.T
        boxes, scores = rows[:, :4], rows[:, 4:]
    else:
        cells = [
            (x, y, stride) for stride in _STRIDES for y in range(size[1] // stride) for x in range(size[0] // stride)
        ]
        grid = np.array(cells, np.float32)
        centres, sides = (rows[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(rows[:, 2:4]) * grid[:, 2:]
        boxes, scores = np.concatenate([centres, sides], 1), rows[:, 4:5] * rows[:, 5:]
    best, ids = scores.max(1), scores.argmax(1)
    sure = best >= own.threshold
    corners, best, ids = corners_of(boxes[sure]), best[sure], ids[sure]
    kept = suppressed(corners, best, ids if own.per_class else np.zeros_like(ids), own.iou)
    return corners[kept], best[kept], ids[kept]


def compared(
    published: Mapping[str, NDArray[Any]], expected: tuple[FloatArray, FloatArray, NDArray[np.int64]], threshold: float
) -> tuple[float, float]:
    """Returns the share of boxes that both have, and the largest difference of their scores.

    published: outputs of one picture, with the batch of one. A picture without a box on either side is equal.
    """
    count = int(published["counts"][0])
    boxes, scores, ids = (published[name][0][:count] for name in ("boxes", "scores", "class_ids"))
    sure = scores >= threshold
    boxes, scores, ids = boxes[sure], scores[sure], ids[sure]
    left, equal, difference = list(range(len(boxes))), 0, 0.0
    for box, score, wanted in zip(*expected, strict=True):
        fitting = [row for row in left if ids[row] == wanted and overlap(boxes[row], box) >= _LEAST_IOU]
        if fitting:
            left.remove(fitting[0])
            equal += 1
            difference = max(difference, abs(float(scores[fitting[0]]) - float(score)))
    total = equal + len(left) + len(expected[0]) - equal
    return (1.0 if total == 0 else equal / total), difference
