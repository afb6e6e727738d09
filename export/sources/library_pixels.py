"""Wraps a library's own preprocessing as a function from a PIL image to a normalised float (3, h, w) array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saccade.export.network import LibraryTransform


def as_library_transform(transform: Callable[[Image.Image], Tensor]) -> LibraryTransform:
    """Wraps a torchvision-style transform of one RGB image."""

    def run(image: Image.Image) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = transform(image).numpy()
        return pixels

    return run
