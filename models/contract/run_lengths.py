"""Masks as COCO's compressed run lengths: pixels outside, inside, outside, ... down the columns, left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class RunLengths(NamedTuple):
    """One mask of a whole picture."""

    height: int
    width: int
    counts: bytes  # in pycocotools' compressed notation, which is ASCII

    @property
    def coco(self) -> dict[str, Any]:
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def text(self) -> bytes:
        """In one line of ASCII, which `read` takes."""
        return b"%d %d %s" % self

    @classmethod
    def read(cls, text: bytes) -> RunLengths:
        """Raises ValueError for what `text` does not give."""
        height, width, counts = text.split(b" ")
        return cls(int(height), int(width), counts)

    @property
    def area(self) -> int:
        return int(coco_mask.area(self.coco))

    def common_area(self, other: RunLengths) -> int:
        return int(coco_mask.area(coco_mask.merge([self.coco, other.coco], intersect=True)))

    def pixels(self) -> BoolArray:
        """(height, width). Raises ValueError for a damaged mask."""
        runs = runs_of(self.counts)
        is_inside = np.arange(len(runs)) % 2 == 1
        return np.repeat(is_inside, runs).reshape(self.width, self.height).T


@dataclass(frozen=True, slots=True, eq=False)
class MaskWindow:
    """The part of a picture that can hold an object's pixels; outside of it there are none."""

    left: int
    top: int
    pixels: BoolArray  # (height, width)

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.pixels))

    def whole(self, height: int, width: int) -> BoolArray:
        """The mask at the picture's size."""
        mask = np.zeros((height, width), np.bool_)
        rows, columns = self.pixels.shape
        mask[self.top : self.top + rows, self.left : self.left + columns] = self.pixels
        return mask

    def run_lengths(self, height: int, width: int) -> RunLengths:
        """Of the whole picture; only the window's pixels are looked at."""
        rows, columns = self.pixels.shape
        bordered = np.zeros((columns, rows + 1), np.bool_)  # a pixel outside ends every column
        bordered[:, :-1] = self.pixels.T
        flat = np.concatenate([[False], bordered.ravel()])
        changes = np.flatnonzero(flat[1:] != flat[:-1])  # where runs start and end, by turns
        column, row = np.divmod(changes, rows + 1)
        places = (self.left + column) * height + self.top + row
        starts, ends = places[::2], places[1::2]
        return run_lengths(starts, ends, height, width)


def run_lengths(starts: IntArray, ends: IntArray, height: int, width: int) -> RunLengths:
    """From positions down the columns: run i covers [starts[i], ends[i]). Runs ascend and may touch."""
    is_apart = np.ones(len(starts), np.bool_)
    is_apart[1:] = starts[1:] != ends[:-1]
    starts, ends = starts[is_apart], ends[np.append(is_apart[1:], True)] if len(ends) else ends
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, height * width
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    counts = np.diff(edges)
    if len(counts) > 1 and counts[-1] == 0:  # the mask's last pixel is inside
        counts = counts[:-1]
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return RunLengths(height, width, encoded["counts"])


def runs_of(counts: bytes) -> list[int]:
    """The lengths of the runs, outside first, of pycocotools' notation, whose own decoder trusts it.

    Raises ValueError where it is damaged.
    """
    runs: list[int] = []
    value, weight = 0, 1
    for character in counts:
        code = character - 48
        if not 0 <= code < 64:
            raise ValueError(f"{chr(character)!r} is no run-length code")
        value += (code & 31) * weight
        weight *= 32
        if code & 32:
            continue
        if code & 16:
            value -= weight
        # From the fourth number on, only the difference to the number two before is written.
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, weight = 0, 1
    if weight != 1 or min(runs, default=0) < 0:
        raise ValueError("run lengths end in the middle of a number, or one is negative")
    return runs


def overlaps(found: Sequence[RunLengths], true: Sequence[RunLengths], is_crowd: BoolArray | None = None) -> Any:
    """IoU of every pair (found, true); for a crowd, the share of the found mask that lies in it."""
    if not found or not true:
        return np.zeros((len(found), len(true)))
    flags = np.zeros(len(true), np.uint8) if is_crowd is None else is_crowd.astype(np.uint8)
    return np.asarray(coco_mask.iou([each.coco for each in found], [each.coco for each in true], flags))
