"""Plans the resize kernels' work for one batch: pure, with the same geometry and crop as `preprocess_into`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import geometry_of
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.vision.resize_taps import Taps, rounds_between, taps_of

THREADS_PER_BLOCK = 256

JOB = np.dtype(  # has the fields of `struct Job` in resize.cu, in the same order
    [
        *((name, np.uint64) for name in ("source", "lines", "out")),
        *((name, np.int64) for name in ("row_step", "column_step")),
        *((name, np.int32) for name in ("first_row", "rows", "left", "top", "width", "height")),
        *((name, np.int32) for name in ("canvas_width", "canvas_height")),
        *((name, np.int32) for name in ("column_starts", "column_weights", "row_starts", "row_weights")),
        *((name, np.int32) for name in ("pad", "is_bgr", "rounds_between")),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """RGB bytes of one decoded image as they were stored, before EXIF rotation."""

    address: int
    width: int
    height: int
    row_bytes: int
    orientation: int = 1  # EXIF value, 1-8

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after the EXIF rotation."""
        return upright_size(self.width, self.height, self.orientation)


@dataclass(frozen=True, slots=True, eq=False)
class ResizePlan:
    """The work for one batch; the caller fills in the addresses `lines` and `out` of each job."""

    jobs: NDArray[np.void]  # (images,) of JOB
    places: NDArray[np.int32]
    weights: NDArray[np.float32]
    lines_offsets: tuple[int, ...]  # byte offset of each image's lines in one common buffer
    lines_bytes: int
    row_blocks: int  # the first kernel's grid is (row_blocks, images)
    column_blocks: int


_TRANSPOSED = frozenset({5, 6, 7, 8})
_FROM_LAST_COLUMN = frozenset({2, 3, 7, 8})  # EXIF values whose upright image starts at the last stored column
_FROM_LAST_ROW = frozenset({3, 4, 6, 7})


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) after the EXIF rotation."""
    return (height, width) if orientation in _TRANSPOSED else (width, height)


def plan_batch(images: Sequence[DecodedImage], spec: PreprocessSpec) -> ResizePlan:
    """Jobs and tables for `images`, in order."""
    jobs = np.zeros(len(images), JOB)
    tables = _Tables()
    offsets: list[int] = []
    lines_bytes = 0
    for job, image in zip(jobs, images, strict=True):
        _fill(job, image, spec, tables)
        offsets.append(lines_bytes)
        lines_bytes += int(job["rows"]) * int(job["width"]) * 3 * 4
    rows_most = int((jobs["rows"].astype(np.int64) * jobs["width"]).max())
    return ResizePlan(
        jobs,
        np.concatenate(tables.places),
        np.concatenate(tables.weights),
        tuple(offsets),
        lines_bytes,
        -(-rows_most // THREADS_PER_BLOCK),
        -(-spec.width * spec.height // THREADS_PER_BLOCK),
    )


class _Tables:
    """The taps of all axes of a batch, each kept once."""

    def __init__(self) -> None:
        self.places: list[NDArray[np.int32]] = []
        self.weights: list[NDArray[np.float32]] = []
        self._place_count = 0
        self._weight_count = 0
        self._known: dict[int, tuple[int, int]] = {}
        self._taps: list[Taps] = []  # kept alive, so that each id stays unique

    def add(self, taps: Taps) -> tuple[int, int]:
        """The indices of the taps' places and of their weights in the tables."""
        known = self._known.get(id(taps))
        if known is not None:
            return known
        at = self._place_count, self._weight_count
        self._known[id(taps)] = at
        self._taps.append(taps)
        self.places += [taps.starts, taps.counts]
        self.weights.append(taps.weights.ravel())
        self._place_count += 2 * len(taps.starts)
        self._weight_count += taps.weights.size
        return at


def _fill(job: np.void, image: DecodedImage, spec: PreprocessSpec, tables: _Tables) -> None:
    width, height = image.upright_size
    place = geometry_of(width, height, spec)
    left, right = max(0, place.left), min(spec.width, place.left + place.width)
    top, bottom = max(0, place.top), min(spec.height, place.top + place.height)
    how = (spec.resample, spec.antialias)
    columns = taps_of(width, place.width, left - place.left, right - place.left, *how)
    rows = taps_of(height, place.height, top - place.top, bottom - place.top, *how)
    first_row = rows.first
    job["source"], job["row_step"], job["column_step"] = _upright_walk(image)
    job["first_row"], job["rows"] = first_row, rows.last - first_row
    job["left"], job["top"], job["width"], job["height"] = left, top, right - left, bottom - top
    job["canvas_width"], job["canvas_height"] = spec.width, spec.height
    job["column_starts"], job["column_weights"] = tables.add(columns)
    job["row_starts"], job["row_weights"] = tables.add(rows)
    job["pad"], job["is_bgr"] = spec.pad_value, spec.channel_order == "bgr"
    job["rounds_between"] = rounds_between((width, height), (place.width, place.height), *how)


def _upright_walk(image: DecodedImage) -> tuple[int, int, int]:
    """The offset of the upright image's first pixel, and the steps in bytes to its next row and column."""
    start, down, right = image.address, image.row_bytes, 3
    if image.orientation in _FROM_LAST_ROW:
        start += (image.height - 1) * image.row_bytes
        down = -down
    if image.orientation in _FROM_LAST_COLUMN:
        start += (image.width - 1) * 3
        right = -right
    return (start, right, down) if image.orientation in _TRANSPOSED else (start, down, right)
