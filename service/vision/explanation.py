"""Writes where the network looked: an 8-bit grid with its place in the picture, or a grey PNG over all of it."""

from __future__ import annotations

import binascii
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.preprocessing import Geometry

ExplainFormat = Literal["grid", "png"]

_LONGEST_SIDE = 128  # pixels of the PNG, which are drawn and encoded in half a millisecond
_PIXELS_PER_CELL = 4  # of the grid's longer side, for smooth edges; clients stretch the PNG over the picture
_WHITE = 255


def explanation_json(
    heat: NDArray[np.float32], place: Geometry, size: tuple[int, int], method: str, wanted: ExplainFormat
) -> dict[str, Any]:
    """The field `explanation` of an answer. `heat` (rows, columns) covers the network's input of `size` (w, h)."""
    grid = eight_bits(heat)
    described: dict[str, Any] = {"method": method}
    if wanted == "png":
        return {"explanation": {**described, "png": _base64(_png(grid, place, size))}}
    rows, columns = grid.shape
    return {
        "explanation": {
            **described,
            "rows": rows,
            "columns": columns,
            "box": grid_box(place, size),
            "grid": _base64(grid.tobytes()),
        }
    }


def eight_bits(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The map with its largest value at 255; one without any heat stays black."""
    hottest = float(heat.max())
    if hottest <= 0.0:
        return np.zeros(heat.shape, np.uint8)
    scaled: NDArray[np.uint8] = np.rint(np.clip(heat / hottest, 0.0, 1.0) * _WHITE).astype(np.uint8)
    return scaled


def grid_box(place: Geometry, size: tuple[int, int]) -> list[float]:
    """Where the grid lies: x1 y1 x2 y2 in pixels of the picture, beyond its edges where bars were added."""
    scale_x, scale_y = place.source_width / place.width, place.source_height / place.height
    corners = (
        -place.left * scale_x,
        -place.top * scale_y,
        (size[0] - place.left) * scale_x,
        (size[1] - place.top) * scale_y,
    )
    return [round(corner, 2) for corner in corners]


def _png(grid: NDArray[np.uint8], place: Geometry, size: tuple[int, int]) -> bytes:
    """The grid drawn over the picture, smaller and in its shape; black where a crop cut the picture away."""
    longest = min(_LONGEST_SIDE, _PIXELS_PER_CELL * max(grid.shape))
    shrink = min(1.0, longest / max(place.source_width, place.source_height))
    width, height = (max(1, round(side * shrink)) for side in (place.source_width, place.source_height))
    cells_x, cells_y = grid.shape[1] / size[0], grid.shape[0] / size[1]  # grid cells per pixel of the network's input
    # Of each pixel of the PNG, the place in the grid; Pillow adds half a pixel on both sides by itself.
    matrix = (
        place.width / width * cells_x,
        0.0,
        place.left * cells_x,
        0.0,
        place.height / height * cells_y,
        place.top * cells_y,
    )
    drawn = Image.fromarray(grid).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=0
    )
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _base64(content: bytes) -> str:
    return binascii.b2a_base64(content, newline=False).decode()
