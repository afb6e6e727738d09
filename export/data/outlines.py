"""Masks of objects as annotations give them, before the size of their picture is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pycocotools import mask as coco_mask

from saccade.export.errors import DataRefused
from saccade.models.contract.run_lengths import RunLengths, runs_of

Size = tuple[int, int]  # width, height of the upright picture
_FEWEST_NUMBERS = 6  # of a ring: three corners


@dataclass(frozen=True, slots=True)
class Outline:
    """One object: rings x1 y1 x2 y2 ..., in pixels or as fractions of the picture's sides; or run lengths."""

    rings: tuple[tuple[float, ...], ...] = ()
    runs: RunLengths | None = None

    def mask(self, size: Size, *, in_shares: bool) -> RunLengths:
        """Raises DataRefused for run lengths of another size."""
        width, height = size
        if self.runs is not None:
            if (self.runs.width, self.runs.height) != size:
                raise DataRefused(
                    f"a mask of run lengths is {self.runs.width}x{self.runs.height} and its picture {width}x{height}: "
                    "annotate the picture as it is shown"
                )
            return self.runs
        scale = size if in_shares else (1, 1)
        rings = [[value * scale[index % 2] for index, value in enumerate(ring)] for ring in self.rings]
        merged = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
        return RunLengths(height, width, merged["counts"])


def outline_of_ring(numbers: Sequence[float]) -> Outline | None:
    """None for what encloses nothing."""
    return Outline((tuple(numbers),)) if len(numbers) >= _FEWEST_NUMBERS and len(numbers) % 2 == 0 else None


class _CocoRuns(msgspec.Struct, frozen=True):
    size: tuple[int, int]  # height, width
    counts: list[int] | str


def outline_of_coco(raw: msgspec.Raw) -> Outline | None:
    """Reads COCO's `segmentation`: polygons, run lengths, or compressed ones. None for what is none of these."""
    try:
        found: Any = msgspec.json.decode(raw, type=list[list[float]] | _CocoRuns)
        if isinstance(found, _CocoRuns):
            return Outline(runs=_runs(found))
    except (msgspec.DecodeError, ValueError, TypeError):
        return None
    rings = tuple(tuple(ring) for ring in found if outline_of_ring(ring) is not None)
    return Outline(rings) if rings else None


def _runs(found: _CocoRuns) -> RunLengths:
    """Raises ValueError when the runs do not cover the picture."""
    height, width = found.size
    if isinstance(found.counts, str):
        runs = RunLengths(height, width, found.counts.encode("ascii"))
        total = sum(runs_of(runs.counts))  # pycocotools would write as many pixels, whatever the size is
    else:
        encoded = coco_mask.frPyObjects({"size": [height, width], "counts": found.counts}, height, width)
        runs, total = RunLengths(height, width, encoded["counts"]), sum(found.counts)
    if total != height * width:
        raise ValueError(f"run lengths cover {total} pixels of {height * width}")
    return runs
