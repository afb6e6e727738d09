"""Segmenter answers at source size: COCO run lengths, a PNG of class ids, or polygons."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.preprocessing import Geometry, mask_to_source
from saccade.models.contract.run_lengths import RunLengths, run_lengths

MaskFormat = Literal["rle", "png", "polygon", "none"]
UInt8Array = NDArray[np.uint8]


def segments_json(
    mask: UInt8Array,
    place: Geometry,
    labels: Sequence[str],
    background_id: int | None,
    mask_format: MaskFormat,
) -> dict[str, Any]:
    """The answer's JSON. `mask` holds class ids (model height, model width). Slow for large sources: use a thread.

    Pixels that a crop cut away are background, or class 0 where the model has none: a PNG needs an id everywhere.
    """
    source = mask_to_source(mask, place, outside=background_id or 0)
    runs = _runs_of(source, len(labels))
    segments: list[dict[str, Any]] = [
        {"label": labels[class_id], "class_id": class_id, "area": runs.area_of(class_id)}
        for class_id in runs.present()
        if class_id != background_id
    ]
    for segment in segments:
        if mask_format == "rle":
            segment["rle"] = runs.rle_of(segment["class_id"])
        elif mask_format == "polygon":
            segment["polygons"] = polygons_of(source == segment["class_id"])
    answer: dict[str, Any] = {"segments": segments}
    if mask_format == "png":
        answer["mask_png"] = png_text(Image.fromarray(source))
    return answer


@dataclass(frozen=True, slots=True)
class _Runs:
    """A class mask as runs of equal ids down its columns, the order in which COCO counts."""

    size: tuple[int, int]  # (height, width)
    class_ids: UInt8Array  # (runs,)
    starts: NDArray[np.int64]  # (runs + 1,): first pixel of each run, then the number of pixels
    areas: NDArray[np.int64]  # (classes,) number of pixels

    def present(self) -> list[int]:
        found: list[int] = np.flatnonzero(self.areas).tolist()
        return found

    def area_of(self, class_id: int) -> int:
        return int(self.areas[class_id])

    def rle_of(self, class_id: int) -> dict[str, Any]:
        rows = np.flatnonzero(self.class_ids == class_id)
        return rle_json(run_lengths(self.starts[rows], self.starts[rows + 1], *self.size))


def _runs_of(mask: UInt8Array, classes: int) -> _Runs:
    """Finds the runs of a mask in one pass, whatever the number of classes."""
    columns = mask.T.ravel()
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    starts = np.concatenate(([0], changes, [columns.size]))
    class_ids = columns[starts[:-1]]
    areas = np.bincount(class_ids, np.diff(starts), classes).astype(np.int64)
    height, width = mask.shape
    return _Runs((height, width), class_ids, starts, areas)


def polygons_of(is_inside: NDArray[np.bool_], left: int = 0, top: int = 0) -> list[dict[str, Any]]:
    """Outlines of a mask (height, width), one entry per region: `exterior` and `holes`, rings (points, 2) of x, y.

    Coordinates are source pixels with (0, 0) at the image's corner, so pixel centres lie at .5; the mask's first pixel
    is the image's at (left, top).
    """
    rows, columns = (np.flatnonzero(is_inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return []
    is_inside = is_inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    left, top = left + int(columns[0]), top + int(rows[0])
    height, width = is_inside.shape
    padded = np.zeros((height + 2, width + 2), np.float32)  # a border, so that outlines at the edge close
    padded[1:-1, 1:-1] = is_inside
    centres_x = np.arange(width + 2) + (left - 0.5)
    centres_y = np.arange(height + 2) + (top - 0.5)
    generator = contourpy.contour_generator(
        centres_x,
        centres_y,
        padded,
        name="threaded",  # the same outlines as "serial", without holding the interpreter's lock
        fill_type=contourpy.FillType.OuterOffset,
        thread_count=1,
    )
    filled: Any = generator.filled(0.5, 2.0)
    regions = []
    for points, offsets in zip(*filled, strict=True):
        rings = [points[start:end] for start, end in pairwise(offsets)]
        regions.append({"exterior": rings[0], "holes": rings[1:]})
    return regions


def rle_json(runs: RunLengths) -> dict[str, Any]:
    """COCO's compressed run lengths as JSON holds them."""
    return {"size": [runs.height, runs.width], "counts": runs.counts.decode("ascii")}


def png_text(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
