"""Tests resizing: values within one level of Pillow's, with and without the fast resizer, and OpenCV's bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saccade.models.contract import resampling
from saccade.models.contract.preprocessing import geometry_of, preprocess
from saccade.models.contract.specs import PreprocessSpec, Resample
from tests.support.pixels import FILTERS, difference, noise, picture, resized_by_pillow

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(params=["with cykooz-resizer", "without"])
def either_resizer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on x86-64, and as on aarch64, where cykooz-resizer has no wheel."""
    if request.param == "without":
        monkeypatch.setattr(resampling, "_fast_resize", None)


@pytest.mark.usefixtures("either_resizer")
@pytest.mark.parametrize("name", list(FILTERS))
@pytest.mark.parametrize("size", [(200, 100), (20, 10), (64, 48), (3, 91), (1201, 901)])
def test_resize_is_pillows_within_one_level(name: Resample, size: tuple[int, int]) -> None:
    spec = PreprocessSpec(width=64, height=48, fit="stretch", resample=name)
    pixels = picture(*size)

    assert difference(preprocess(pixels, spec), resized_by_pillow(pixels, (64, 48), name)) <= 1


@settings(max_examples=60, deadline=None)
@example(width=41, height=317, resample="lanczos")
@given(width=st.integers(24, 400), height=st.integers(24, 400), resample=st.sampled_from(list(FILTERS)))
def test_crop_is_the_middle_of_the_whole_resize(width: int, height: int, resample: Resample) -> None:
    spec = PreprocessSpec(width=33, height=27, fit="crop", shortest_edge=40, rounding="floor", resample=resample)
    pixels = picture(width, height)
    place = geometry_of(width, height, spec)
    top, left = -place.top, -place.left

    whole = resized_by_pillow(pixels, (place.width, place.height), resample)
    gaps = np.abs(preprocess(pixels, spec).astype(np.int16) - whole[top : top + 27, left : left + 33])

    assert gaps.max() <= 2
    assert (gaps > 1).sum() <= 3  # of 2,673: of 41x317 by lanczos it is one


@pytest.mark.parametrize("resample", ["bilinear", "box"])
def test_a_strip_is_cropped_without_resizing_all_of_it(resample: Resample) -> None:
    # given an image whose whole resize would take twelve gigabytes
    spec = PreprocessSpec(width=224, height=224, fit="crop", shortest_edge=256, rounding="floor", resample=resample)
    strip = np.full((1, 65_500, 3), 90, np.uint8)

    assert (preprocess(strip, spec) == 90).all()


def test_without_antialiasing_only_the_nearest_pixels_count() -> None:
    line = np.repeat(np.array([[0, 40, 80, 120, 240, 200]], np.uint8)[..., np.newaxis], 3, axis=2)

    def resized(resample: Resample, antialias: bool) -> list[int]:
        spec = PreprocessSpec(width=2, height=1, fit="stretch", resample=resample, antialias=antialias)
        values: list[int] = preprocess(line, spec)[0, :, 0].tolist()
        return values

    # then each output is the pixel at its centre (1 and 4), or at its corner (0 and 3) as in torch
    assert resized("bilinear", antialias=False) == [40, 240]
    assert resized("bicubic", antialias=False) == [40, 240]
    assert resized("nearest", antialias=False) == [0, 120]
    assert resized("nearest", antialias=True) == [40, 240]
    assert resized("bilinear", antialias=True) not in ([40, 240], [0, 120])


def test_a_linear_filter_that_enlarges_has_nothing_to_antialias() -> None:
    pixels = picture(20, 10)
    specs = [PreprocessSpec(width=50, height=40, fit="stretch", antialias=antialias) for antialias in (True, False)]

    assert np.array_equal(*(preprocess(pixels, spec) for spec in specs))


@pytest.mark.skipif(resampling._fast_resize is None, reason="cykooz-resizer has no wheel for this platform")
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(500, 375), (91, 300), (40, 23)])
def test_platform_without_the_fast_resizer_sees_the_same_crop(
    name: Resample, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given noise, whose overshoots show which pass came first, and whose middle is cut out
    spec = PreprocessSpec(width=64, height=48, fit="crop", shortest_edge=96, rounding="floor", resample=name)
    pixels = noise(*size)

    fast = preprocess(pixels, spec)
    monkeypatch.setattr(resampling, "_fast_resize", None)
    slow = preprocess(pixels, spec)

    assert difference(slow, fast) <= 1


def test_platform_without_the_fast_resizer_imports_and_resizes() -> None:
    program = """if True:
        import sys
        sys.modules["cykooz_resizer"] = None  # as where it is not installed
        import numpy as np
        from saccade.models.contract.resampling import Window, resized_part
        pixels = np.full((50, 40, 3), 7, np.uint8)
        print(resized_part(pixels, (20, 25), Window(0, 0, 20, 25), "bicubic", True).mean())
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, timeout=60
    )

    assert float(result.stdout) == 7.0


@pytest.mark.usefixtures("either_resizer")
def test_resized_values_are_fixed_by_a_golden() -> None:
    # The resize path decides accuracy; a change of library or filter must be seen here.
    ramp = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)

    out = preprocess(ramp, PreprocessSpec(width=3, height=3, fit="stretch"))

    assert out[:, :, 0].tolist() == [[30, 38, 45], [87, 95, 102], [144, 152, 159]]


@pytest.mark.parametrize(
    ("shape", "size", "channel", "expected"),
    [
        ((5, 7), (4, 3), 0, [[147, 73, 41, 58], [68, 190, 145, 133], [105, 62, 146, 91]]),
        ((5, 7), (3, 2), 0, [[125, 70, 43], [74, 163, 134]]),
        ((4, 6), (3, 2), 1, [[128, 124, 105], [117, 136, 136]]),  # halving is the mean of four
    ],
)
def test_opencv_s_resize_is_followed_bit_for_bit(
    shape: tuple[int, int], size: tuple[int, int], channel: int, expected: list[list[int]]
) -> None:
    """Expected: cv2.resize with INTER_LINEAR, OpenCV 5.0.0, on the same bytes."""
    rng = np.random.default_rng(5)
    pictures = {(5, 7): rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)}
    pictures[4, 6] = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    spec = PreprocessSpec(width=size[0], height=size[1], fit="stretch", resample="opencv", antialias=False)

    assert preprocess(pictures[shape], spec)[..., channel].tolist() == expected


def test_opencv_s_resize_does_not_antialias() -> None:
    with pytest.raises(ValueError, match="resample: opencv does not antialias"):
        PreprocessSpec(width=8, height=8, fit="stretch", resample="opencv")
