"""Detector answers: boxes in source pixels, inside the image, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import Geometry, boxes_to_source


def detections_json(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    count: int,
    place: Geometry,
    labels: Sequence[str],
    score_threshold: float,
    max_detections: int,
) -> dict[str, Any]:
    """The answer's JSON. `boxes` (k, 4) x1 y1 x2 y2 in model pixels, `scores` (k,), `class_ids` (k,); `count` rows are
    real.
    """
    rows = answered_rows(scores, count, score_threshold)[:max_detections]
    return {"detections": objects_json(boxes, scores, class_ids, rows, place, labels)}


def answered_rows(scores: NDArray[np.float32], count: int, score_threshold: float) -> NDArray[np.intp]:
    """The rows that reach the threshold, best first."""
    rows = np.flatnonzero(scores[:count] >= score_threshold)
    return rows[np.argsort(-scores[rows], kind="stable")]


def objects_json(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    rows: NDArray[np.intp],
    place: Geometry,
    labels: Sequence[str],
) -> list[dict[str, Any]]:
    """One object per row, in their order."""
    source = boxes_to_source(boxes[rows], place).astype(np.float64).round(2)
    answers = zip(class_ids[rows].tolist(), scores[rows].tolist(), source.tolist(), strict=True)
    return [
        {"label": labels[class_id], "class_id": class_id, "score": round(score, 6), "box": box}
        for class_id, score, box in answers
    ]
