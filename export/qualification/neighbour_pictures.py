"""Draws what a search finds: a query, and behind it the pictures that are nearest by one answer's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample
from saccade.models.metrics.retrieval import nearest_rows
from saccade.service.vision.image_decoder import decode_image

SHOWN = 3  # nearest pictures
_SIDE, _GAP = 96, 4  # pixels


def neighbours_strip(vectors: NDArray[Any], split: ImageSplit, index: int) -> Image.Image:
    """The query and its nearest pictures of the split, each fitted into a square."""
    shown = [index, *_nearest(vectors, index)]
    strip = Image.new("RGB", (len(shown) * (_SIDE + _GAP) - _GAP, _SIDE), (127, 127, 127))
    for place, row in enumerate(shown):
        picture = Image.fromarray(decode_image(split.samples[row].encoded, split.limits))
        picture.thumbnail((_SIDE, _SIDE))
        left = place * (_SIDE + _GAP) + (_SIDE - picture.width) // 2
        strip.paste(picture, (left, (_SIDE - picture.height) // 2))
    return strip


def neighbours_text(vectors: NDArray[Any], split: ImageSplit, index: int, labels: Sequence[str]) -> str:
    """Labels and cosines of the nearest pictures."""
    found = []
    for row in _nearest(vectors, index):
        sample = split.samples[row]
        is_known = isinstance(sample, ClassSample) and sample.is_labelled
        name = labels[sample.class_id] if isinstance(sample, ClassSample) and is_known else f"image {row}"
        found.append(f"{name} {float(np.dot(vectors[index], vectors[row])):.3f}")
    return ", ".join(found) or "no other picture"


def _nearest(vectors: NDArray[Any], index: int) -> list[int]:
    rows: list[int] = nearest_rows(vectors, min(SHOWN, len(vectors) - 1))[index].tolist() if len(vectors) > 1 else []
    return rows
