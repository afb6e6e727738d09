"""Makes one mask per detection from an answer's mask tensors, in source pixels; the same in serving and evaluation.

A mask is a surface over few cells, which is read at pixel centres by bilinear interpolation and is inside above zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import Geometry, boxes_to_source, model_positions
from saccade.models.contract.run_lengths import MaskWindow
from saccade.models.contract.specs import MaskSpec

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.intp]
_INSIDE = 0.5  # probability above which a cell of a box belongs to the object
_NOTHING = MaskWindow(0, 0, np.zeros((0, 0), np.bool_))


def mask_windows(
    answer: Sequence[NDArray[Any]], rows: NDArray[np.integer], masks: MaskSpec, size: tuple[int, int], place: Geometry
) -> list[MaskWindow]:
    """The masks of some rows of one image's answer, in their order; size: (width, height) of the model's input.

    `answer` is named as in `output_tensors`. Objects that lie outside of the picture get an empty window.
    """
    boxes, tensors = answer[0], answer[4:]
    if masks.form == "boxes":
        places = boxes_to_source(boxes[rows], place)
        return [_in_box(tensors[0][row], box, place) for row, box in zip(rows, places, strict=True)]
    coefficients, prototypes = tensors
    columns = model_positions(place.source_width, place.width, place.left)
    lines = model_positions(place.source_height, place.height, place.top)
    return [
        _of_prototypes(
            coefficients[row], prototypes, boxes[row] if masks.form == "prototypes" else None, size, columns, lines
        )
        for row in rows
    ]


def _of_prototypes(
    coefficients: FloatArray,
    prototypes: FloatArray,
    box: FloatArray | None,
    size: tuple[int, int],
    columns: IntArray,
    lines: IntArray,
) -> MaskWindow:
    """The weighted sum of the prototypes, read at the centre of the model pixel that each source pixel shows.

    That is Ultralytics' `process_mask`: the surface is brought to the model's size, then cut at the box, whose pixels
    are those with x1 <= column < x2. columns, lines: model pixels of the source's, ascending.
    """
    x1, y1, x2, y2 = (0.0, 0.0, *size) if box is None else box.tolist()
    left, right = _span(columns, x1, min(x2, size[0]))
    top, bottom = _span(lines, y1, min(y2, size[1]))
    if left >= right or top >= bottom:
        return _NOTHING
    height, width = prototypes.shape[1:]
    across, seen_columns = _distinct(columns[left:right])
    down, seen_lines = _distinct(lines[top:bottom])
    x, y = _cells(across, size[0], width), _cells(down, size[1], height)
    x0, x_end = int(x[0]), min(int(x[-1]) + 2, width)
    y0, y_end = int(y[0]), min(int(y[-1]) + 2, height)
    surface = np.tensordot(coefficients, prototypes[:, y0:y_end, x0:x_end], 1)
    inside = _read(surface, x - np.float32(x0), y - np.float32(y0)) > 0.0
    return MaskWindow(left, top, inside.take(seen_lines, 0).take(seen_columns, 1))


def _in_box(probabilities: FloatArray, box: FloatArray, place: Geometry) -> MaskWindow:
    """torchvision's `paste_masks_in_image`: a border of one cell is added, and the box grows with it."""
    cells = probabilities.shape[0] + 2
    grown = np.float32(cells / probabilities.shape[0])
    half = (box[2:] - box[:2]) * np.float32(0.5) * grown
    centre = (box[2:] + box[:2]) * np.float32(0.5)
    x1, y1 = (centre - half).astype(np.int64).tolist()  # towards zero, as the library does
    x2, y2 = (centre + half).astype(np.int64).tolist()
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    left, right = max(x1, 0), min(x2 + 1, place.source_width)
    top, bottom = max(y1, 0), min(y2 + 1, place.source_height)
    if left >= right or top >= bottom:
        return _NOTHING
    surface = np.pad(probabilities, 1) - np.float32(_INSIDE)
    x = _cells(np.arange(left - x1, right - x1), width, cells)
    y = _cells(np.arange(top - y1, bottom - y1), height, cells)
    return MaskWindow(left, top, _read(surface, x, y) > 0.0)


def _span(positions: IntArray, low: float, high: float) -> tuple[int, int]:
    """The source pixels whose model pixel p has max(0, low) <= p < high."""
    start, end = np.searchsorted(positions, (max(0.0, low), high))
    return int(start), int(end)


def _distinct(positions: IntArray) -> tuple[IntArray, IntArray]:
    """The values of an ascending array, and for each element which of them it is."""
    is_new = np.concatenate([[True], positions[1:] != positions[:-1]])
    return positions[is_new], np.cumsum(is_new) - 1


def _cells(pixels: NDArray[np.integer], side: int, cells: int) -> FloatArray:
    """Where the centres of pixels lie among the centres of cells, as torch's `interpolate` without aligned corners."""
    places = (pixels.astype(np.float32) + np.float32(0.5)) * np.float32(cells / side) - np.float32(0.5)
    within: FloatArray = np.clip(places, 0.0, cells - 1).astype(np.float32)
    return within


def _read(surface: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """(y, x): the surface between its cells, bilinear."""
    return _between(_between(surface, y, 0), x, 1)


def _between(surface: FloatArray, places: FloatArray, axis: int) -> FloatArray:
    low = places.astype(np.intp)
    weights = (places - low).reshape((-1, 1) if axis == 0 else (1, -1))
    first = surface.take(low, axis)
    result: FloatArray = first + (surface.take(np.minimum(low + 1, surface.shape[axis] - 1), axis) - first) * weights
    return result
