"""Reads the masks of answers: COCO's run lengths, PNGs and polygons, each to the same pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskSource:
    """A mask as an answer holds it."""

    document: Mapping[str, Any]  # with `rle`, `mask_png`, `polygons`, or none of them
    width: int  # of the picture
    height: int
    class_id: int | None = None  # of a PNG of class ids; None: the PNG is the mask

    @property
    def is_there(self) -> bool:
        return not self.document.keys().isdisjoint(("rle", "mask_png", "polygons"))

    def read(self) -> BoolArray:
        """(height, width). Raises ValueError where the answer has none."""
        if "rle" in self.document:
            from saccade.models.contract.run_lengths import RunLengths

            height, width = self.document["rle"]["size"]
            return RunLengths(height, width, self.document["rle"]["counts"].encode()).pixels()
        if "mask_png" in self.document:
            pixels = _png_pixels(self.document["mask_png"])
            return pixels.astype(bool) if self.class_id is None else pixels == self.class_id
        if "polygons" in self.document:
            rings = [ring for region in self.document["polygons"] for ring in (region["exterior"], *region["holes"])]
            return _filled(rings, self.width, self.height)
        raise ValueError("this answer has no masks: the network gives none, or mask_format is none")


def _png_pixels(text: str) -> NDArray[Any]:
    """(height, width): class ids, or booleans of a PNG of one bit."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image)


def _filled(rings: Sequence[Sequence[Sequence[float]]], width: int, height: int) -> BoolArray:
    """Pixels whose centres lie within an odd number of rings."""
    import numpy as np

    crossings = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        points = np.asarray(ring, float)
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
            first, last = sorted((y1, y2))
            rows = np.arange(max(0, np.ceil(first - 0.5)), min(height, np.ceil(last - 0.5)), dtype=np.intp)
            if rows.size:
                x = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
                crossings[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)] += 1
    inside: BoolArray = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return inside
