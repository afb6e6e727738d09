"""Run lengths. Promises: equal to pycocotools' own for any mask and any window around it; text is read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from saccade.models.contract.run_lengths import MaskWindow, RunLengths, overlaps

masks = st.integers(0, 2**32 - 1).map(lambda seed: random_mask(np.random.default_rng(seed)))


def random_mask(rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.random(tuple(rng.integers(1, 9, 2))) < rng.choice([0.0, 0.2, 0.8, 1.0])


@given(masks, st.tuples(*[st.integers(0, 2)] * 4))
def test_a_window_s_run_lengths_are_those_of_the_whole_mask(
    inner: NDArray[np.bool_], borders: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = borders
    whole = np.pad(inner, ((top, bottom), (left, right)))

    found = MaskWindow(left, top, inner).run_lengths(*whole.shape)

    assert found.counts == coco_mask.encode(np.asfortranarray(whole, np.uint8))["counts"]
    assert np.array_equal(found.pixels(), whole)
    assert np.array_equal(MaskWindow(left, top, inner).whole(*whole.shape), whole)
    assert found.area == MaskWindow(left, top, inner).area == int(whole.sum())
    assert RunLengths.read(found.text) == found


def test_overlaps_and_common_areas_are_those_of_the_pixels() -> None:
    rng = np.random.default_rng(3)
    pixels = rng.random((6, 20, 30)) < 0.4
    runs = [MaskWindow(0, 0, each).run_lengths(20, 30) for each in pixels]

    found = overlaps(runs[:2], runs[2:], np.array([False, True, False, False]))

    for row, one in enumerate(pixels[:2]):
        for column, other in enumerate(pixels[2:]):
            whole = one.sum() if column == 1 else (one | other).sum()  # of a crowd: the share that lies in it
            assert found[row, column] == pytest.approx((one & other).sum() / whole)
            assert runs[row].common_area(runs[2 + column]) == (one & other).sum()
    assert overlaps([], runs).shape == (0, 6)


def test_text_that_is_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        RunLengths.read(b"")
