"""Images with their truth, wherever they come from. Promises: class ids are indices of the recipe's labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = 255  # mask value of pixels that nobody labelled; they count neither for nor against


@dataclass(frozen=True, slots=True)
class ClassSample:
    """An encoded image (JPEG, PNG, WebP or BMP) of one class."""

    encoded: bytes
    class_id: int


@dataclass(frozen=True, slots=True, eq=False)
class DetectSample:
    encoded: bytes
    boxes: NDArray[np.floating]  # (n, 4) x1 y1 x2 y2, source pixels
    class_ids: NDArray[np.int64]  # (n,)
    is_crowd: NDArray[np.bool_] | None = None  # (n,) boxes around many objects, as COCO's iscrowd; None: no crowds

    @property
    def object_ids(self) -> NDArray[np.int64]:
        """Classes of single objects, without crowds."""
        return self.class_ids if self.is_crowd is None else self.class_ids[~self.is_crowd]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentSample:
    encoded: bytes
    mask: NDArray[np.uint8]  # (height, width) of the image; IGNORED where unlabelled


Sample = ClassSample | DetectSample | SegmentSample
