"""The pictures on which a converted file is held to its network: drawn ones, and some of the recipe's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.datasets import DataStore, has_split
from saccade.export.errors import DataRefused
from saccade.export.recipe import LoadedRecipe

COUNT = 8
_OWN = 4  # a text detector sees no text in drawn pictures, and its answer to them is next to nothing


def proof_images(data: DataStore, loaded: LoadedRecipe) -> NDArray[np.uint8]:
    """Returns COUNT pictures as model input (n, height, width, 3), own and drawn ones in turn, always the same.

    Own pictures are some of the calibration split. All are drawn where the data has no such split, or no labels: a run
    ends before that, but `saccade-export compare` needs none.
    """
    spec = loaded.recipe.preprocess
    pictures = drawn_images(COUNT, spec.height, spec.width)
    own = _own_images(data, loaded)
    if len(own):
        chosen = np.linspace(0, len(own) - 1, min(_OWN, len(own))).round().astype(int)
        pictures[: 2 * len(chosen) : 2] = own[chosen]
    return pictures


def _own_images(data: DataStore, loaded: LoadedRecipe) -> NDArray[np.uint8]:
    try:
        return data.split(loaded, "calibration").images if has_split(loaded, "calibration") else np.empty(0, np.uint8)
    except DataRefused:
        return np.empty(0, np.uint8)


def drawn_images(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Returns pictures (count, height, width, 3) with shapes at several scales and a little noise, always the same."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((count, height, width, 3), np.float32)
    for cells, weight in ((3, 0.6), (9, 0.3), (27, 0.1)):
        coarse = rng.integers(0, 256, (count, cells, cells, 3), np.uint8)
        for picture, small in zip(pictures, coarse, strict=True):
            picture += weight * np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    pictures += rng.normal(0, 4, pictures.shape).astype(np.float32)
    return np.clip(pictures, 0, 255).astype(np.uint8)
