"""Corrupts pictures as Hendrycks & Dietterich do (arXiv 1903.12261), through the library `imagecorruptions`.

The network's input is corrupted, behind decoding and resizing: that is where the strengths were defined (224 pixels),
and a picture of any size costs the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import RecipeError
from saccade.export.recipe import LoadedRecipe

STRENGTHS = (1, 3, 5)
_LIBRARY = "imagecorruptions"
_MISSING = "gate.corruptions needs the extra `corruptions`: pip install 'saccade-serving[corruptions]'"

Images = NDArray[np.uint8]  # (n, height, width, 3)


def missing_library(loaded: LoadedRecipe) -> str:
    """Says what to install for the recipe; empty where it is there, or not needed."""
    return _MISSING if loaded.recipe.gate.corruptions is not None and not find_spec(_LIBRARY) else ""


def corrupted_sets(images: Images) -> Iterator[tuple[str, int, Images]]:
    """Yields kind, strength and the corrupted pictures; equal pictures and places give equal ones every time.

    Raises RecipeError where the library cannot be loaded.
    """
    try:
        from imagecorruptions import corrupt, get_corruption_names
    except ImportError as error:  # OpenCV's wheel also wants a library of the system
        raise RecipeError(f"{_MISSING} ({error})") from error
    for kind in get_corruption_names("common"):
        for strength in STRENGTHS:
            result = np.empty_like(images)
            for index, image in enumerate(images):
                seed = zlib.crc32(f"{kind} {strength} {index}".encode())
                with _drawing_from(seed):
                    result[index] = corrupt(image, corruption_name=kind, severity=strength)
            yield kind, strength, result


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Seeds what the library draws from, numpy's global state and generators without a seed; then all is as before."""
    state, unseeded = np.random.get_state(), np.random.default_rng
    np.random.seed(seed)
    with patch.object(np.random, "default_rng", lambda given=None: unseeded(seed if given is None else given)):
        yield
    np.random.set_state(state)
