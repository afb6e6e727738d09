"""Segmenter answers: COCO run lengths, a PNG of class ids, or polygons. Promises: masks at source size, no id lost."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from models.preprocessing import Geometry, mask_to_source

MaskFormat = Literal["rle", "png", "polygon", "none"]
UInt8Array = NDArray[np.uint8]


def segments_json(
    mask: UInt8Array,
    place: Geometry,
    labels: Sequence[str],
    background_id: int | None,
    mask_format: MaskFormat,
) -> dict[str, Any]:
    """`mask` (model height, model width) class ids. Heavy for large sources: call it off the event loop."""
    source = mask_to_source(mask, place)
    areas = np.bincount(source.ravel(), minlength=len(labels))
    present = [class_id for class_id in np.flatnonzero(areas).tolist() if class_id != background_id]
    segments: list[dict[str, Any]] = [
        {"label": labels[class_id], "class_id": class_id, "area": int(areas[class_id])} for class_id in present
    ]
    for segment in segments:
        if mask_format == "rle":
            segment["rle"] = rle_of(source == segment["class_id"])
        elif mask_format == "polygon":
            segment["polygons"] = polygons_of(source == segment["class_id"])
    answer: dict[str, Any] = {"segments": segments}
    if mask_format == "png":
        answer["mask_png"] = base64.b64encode(_png_of(source)).decode("ascii")
    return answer


def rle_of(is_inside: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO compressed run lengths of a mask (height, width)."""
    encoded = coco_mask.encode(np.asfortranarray(is_inside, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def polygons_of(is_inside: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Outlines of a mask (height, width), one entry per region: `exterior` and `holes`, rings of [x, y].

    Coordinates are source pixels with (0, 0) at the image's corner, so pixel centres lie at .5.
    """
    height, width = is_inside.shape
    padded = np.zeros((height + 2, width + 2), np.float32)  # a ring around it, so that regions at the edge close
    padded[1:-1, 1:-1] = is_inside
    centres_x = np.arange(width + 2) - 0.5
    centres_y = np.arange(height + 2) - 0.5
    generator = contourpy.contour_generator(centres_x, centres_y, padded, fill_type=contourpy.FillType.OuterOffset)
    filled: Any = generator.filled(0.5, 2.0)
    regions = []
    for points, offsets in zip(*filled, strict=True):
        rings = [points[start:end].tolist() for start, end in pairwise(offsets)]
        regions.append({"exterior": rings[0], "holes": rings[1:]})
    return regions


def _png_of(mask: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
