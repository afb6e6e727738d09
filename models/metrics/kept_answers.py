"""Keeps masks of answers as run lengths in source pixels, because mask tensors take megabytes per picture.

A kept answer has boxes, scores, class_ids, counts, and masks: the run lengths of each row, as text (n, K).
The rows are those that a client gets: an object without a mask pixel is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.instance_masks import mask_windows
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.run_lengths import MaskWindow, RunLengths
from saccade.models.contract.specs import MaskSpec, TaskSpec

Arrays = Sequence[NDArray[Any]]
BoolArray = NDArray[np.bool_]


def kept_picture(answer: Arrays, task: TaskSpec, size: tuple[int, int], place: Geometry) -> list[NDArray[Any]]:
    """The answer to one picture without truth, arrays (1, ...); size: (width, height) of the network's input."""
    if task.masks is None:
        return list(answer)
    first = [array[0] for array in answer]
    is_drawn = (np.arange(len(first[1])) < first[3]) & (first[1] >= task.score_threshold)
    return [np.asarray(array)[np.newaxis] for array in kept_image(first, task.masks, size, place, is_drawn)]


def masks_of(kept: Arrays, row: int, chosen: NDArray[np.integer]) -> list[RunLengths]:
    """The masks of some rows of one picture's kept answer."""
    return [RunLengths.read(text) for text in kept[4][row, chosen].tolist()]


def kept_image(
    answer: Arrays, masks: MaskSpec, size: tuple[int, int], place: Geometry, is_drawn: BoolArray
) -> list[NDArray[Any]]:
    boxes, scores, class_ids, count = answer[:4]
    rows = np.flatnonzero(is_drawn)
    windows = mask_windows(answer, rows, masks, size, place)
    nothing = MaskWindow(0, 0, np.zeros((0, 0), np.bool_)).run_lengths(place.source_height, place.source_width)
    texts = [nothing.text] * len(scores)
    is_left = np.arange(len(scores)) < count
    for row, window in zip(rows.tolist(), windows, strict=True):
        is_left[row] = window.pixels.any()
        if is_left[row]:
            texts[row] = window.run_lengths(place.source_height, place.source_width).text
    order = np.argsort(~is_left, kind="stable")
    is_left = is_left[order]
    return [
        boxes[order] * is_left[:, None],
        scores[order] * is_left,
        class_ids[order] * is_left,
        is_left.sum().astype(count.dtype),
        np.array([texts[row] for row in order], np.bytes_),
    ]
