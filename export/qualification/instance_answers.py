"""Keeps the answers to a split's pictures; of masks only those that can matter, as `models/metrics/kept_answers.py`
keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import DetectSample, Sample
from saccade.models.contract.preprocessing import Geometry, boxes_to_source
from saccade.models.contract.specs import TaskSpec
from saccade.models.metrics.kept_answers import kept_image

Arrays = Sequence[NDArray[Any]]
BoolArray = NDArray[np.bool_]


def kept_answer(answer: Arrays, task: TaskSpec, split: ImageSplit, start: int) -> list[NDArray[Any]]:
    """The answer to some pictures of a split, which begin at `start`; of tasks without masks it is kept as it is."""
    if task.masks is None:
        return list(answer)
    height, width = split.images.shape[1:3]
    rows = range(len(answer[0]))
    images = [
        kept_image(
            [array[row] for array in answer],
            task.masks,
            (width, height),
            split.geometries[start + row],
            _is_drawn(answer, row, task.score_threshold, split.samples[start + row], split.geometries[start + row]),
        )
        for row in rows
    ]
    return [np.stack(arrays) for arrays in zip(*images, strict=True)]


def _is_drawn(answer: Arrays, row: int, threshold: float, sample: Sample, place: Geometry) -> BoolArray:
    """(K,) the rows whose mask can matter: those that a client gets, and those that may match a true object.

    A mask lies within its box, so that it cannot meet an object whose box is elsewhere.
    """
    boxes, scores, class_ids, counts = (array[row] for array in answer[:4])
    is_row = np.arange(len(scores)) < counts
    is_near = np.zeros(len(scores), np.bool_)
    if isinstance(sample, DetectSample) and len(sample.class_ids):
        found = boxes_to_source(boxes, place)[:, None]
        low, high = np.maximum(found[..., :2], sample.boxes[:, :2]), np.minimum(found[..., 2:], sample.boxes[:, 2:])
        meets = (high > low).all(2) & (class_ids[:, None] == sample.class_ids)
        is_near = meets.any(1)
    result: BoolArray = is_row & (is_near | (scores >= threshold))
    return result
