"""The search for near pictures. Promises: the first look loses no pair, and memory does not grow with the pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from saccade.export.data.nearest_pictures import (
    Form,
    Thumbnails,
    contrasts,
    levels,
    nearest_pictures,
    positions,
    shares_of_contrast,
)


def _thumbnails(count: int, seed: int) -> Thumbnails:
    rng = np.random.default_rng(seed)
    patches = (Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)) for _ in range(count))
    return np.stack([np.asarray(each.resize((16, 16), Image.Resampling.BICUBIC)) for each in patches])


@pytest.mark.parametrize("form", [levels, shares_of_contrast])
def test_the_search_finds_what_comparing_every_position_of_every_pair_finds(form: Form) -> None:
    first, second = _thumbnails(60, seed=1), _thumbnails(90, seed=2)
    forms = np.stack(list(positions(form(first))))
    differences = forms[:, :, None] - form(second)[None, None]
    rms = np.sqrt((differences**2).mean((3, 4, 5))).min(0)
    reach = float(np.median(rms.min(1)))  # half of the pictures have a near one

    found = nearest_pictures(first, second, form, reach)

    rms[rms > reach] = np.inf
    expected = np.sort(rms, axis=1)
    np.testing.assert_allclose(found.best, expected[:, 0], rtol=1e-3)
    np.testing.assert_allclose(found.runner_up, expected[:, 1], rtol=1e-3)
    is_near = np.isfinite(found.best)
    assert is_near.sum() == 30
    np.testing.assert_array_equal(found.place[is_near], rms.argmin(1)[is_near])


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    def peak(count: int) -> int:
        pictures = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
        tracemalloc.start()
        nearest_pictures(pictures[: count // 2], pictures[count // 2 :], levels, 10.0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(8192) - peak(4096) < 4096 * 1024  # a kilobyte per picture, not sixteen for each of its pairs


def test_a_picture_of_one_colour_has_no_contrast_and_no_share() -> None:
    flat = np.full((2, 16, 16, 3), 200, np.uint8)

    assert contrasts(flat).tolist() == [0.0, 0.0]
    assert np.abs(shares_of_contrast(flat)).max() == 0.0
    assert contrasts(flat[:0]).shape == (0,)
