"""Counts how many of a split's pictures show something of their own, so that copies are no further test images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SQUARES, _COARSE = 32, 4  # along each side
_LEAST_PIXELS = 8  # of a square's side
# In levels of a square's mean: what one level of brightness changes. Plain pictures of their own differ by little more.
_SAME, _ROUNDING = 1, 1


def different_pictures(images: NDArray[np.uint8]) -> int:
    """Returns how many of these network inputs (n, height, width, 3) differ from all before them."""
    height, width = (max(1, min(_SQUARES, side // _LEAST_PIXELS)) for side in images.shape[1:3])
    fine = np.stack([_square_means(image, height, width) for image in images])
    coarse = np.stack([_square_means(image, _COARSE, _COARSE) for image in fine])
    flat, rough = (each.reshape(len(images), -1).astype(np.int16) for each in (fine, coarse))
    kept: list[int] = []
    for index in range(len(images)):
        # means of large squares differ by no more than those of small ones, so few pictures need the second look
        near = [] if not kept else np.flatnonzero(_gaps(rough[kept], rough[index]) <= _SAME + _ROUNDING).tolist()
        if not near or _gaps(flat[[kept[each] for each in near]], flat[index]).min() > _SAME:
            kept.append(index)
    return len(kept)


def _gaps(others: NDArray[np.int16], one: NDArray[np.int16]) -> NDArray[np.int16]:
    """Returns the largest difference from each other picture, (n,)."""
    return np.asarray(np.abs(others - one).max(axis=1), np.int16)


def _square_means(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
