"""Geometry and resizing: every byte written, Pillow's own numbers, boxes back within a pixel."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.preprocessing import (
    FloatArray,
    Geometry,
    UInt8Array,
    boxes_to_source,
    geometry_of,
    mask_to_source,
    preprocess,
    preprocess_into,
)
from models.specs import PreprocessSpec

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SIDE = st.one_of(st.integers(1, 64), st.integers(1, 20_000))
_FIT: st.SearchStrategy[Literal["stretch", "letterbox"]] = st.sampled_from(["stretch", "letterbox"])


def noise(width: int, height: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def to_model(boxes: FloatArray, place: Geometry) -> FloatArray:
    """Source to model pixels; the inverse of `boxes_to_source`."""
    scale = np.array([place.width / place.source_width, place.height / place.source_height] * 2, np.float32)
    moved: FloatArray = boxes * scale + np.array([place.left, place.top] * 2, np.float32)
    return moved


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 100), Geometry(200, 100, 0, 8, 32, 16)),
        ((100, 200), Geometry(100, 200, 8, 0, 16, 32)),
        ((32, 32), Geometry(32, 32, 0, 0, 32, 32)),
        ((8, 4), Geometry(8, 4, 0, 8, 32, 16)),  # small images grow
        ((10_000, 1), Geometry(10_000, 1, 0, 15, 32, 1)),  # a side never rounds to nothing
    ],
)
def test_letterbox_keeps_the_aspect_ratio_and_centres(size: tuple[int, int], expected: Geometry) -> None:
    spec = PreprocessSpec(width=32, height=32, fit="letterbox")

    assert geometry_of(*size, spec) == expected


def test_stretch_fills_the_whole_input() -> None:
    spec = PreprocessSpec(width=32, height=16, fit="stretch")

    assert geometry_of(7, 900, spec) == Geometry(7, 900, 0, 0, 32, 16)


@settings(max_examples=200, deadline=None)
@given(width=_SIDE, height=_SIDE, side=st.integers(1, 640), other=st.integers(1, 640), fit=_FIT)
def test_image_lies_inside_the_input_and_boxes_come_back_within_a_pixel(
    width: int, height: int, side: int, other: int, fit: Literal["stretch", "letterbox"]
) -> None:
    place = geometry_of(width, height, PreprocessSpec(width=side, height=other, fit=fit))
    assert place.width >= 1
    assert place.height >= 1
    assert 0 <= place.left <= side - place.width
    assert 0 <= place.top <= other - place.height
    boxes = np.array([[0, 0, width, height], [width / 3, height / 4, width / 2, height]], np.float32)

    assert np.abs(boxes_to_source(to_model(boxes, place), place) - boxes).max() < 1.0


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), fit=_FIT)
def test_boxes_outside_are_clipped_to_the_image(width: int, height: int, fit: Literal["stretch", "letterbox"]) -> None:
    place = geometry_of(width, height, PreprocessSpec(width=64, height=64, fit=fit))

    (box,) = boxes_to_source(np.array([[-50, -50, 500, 500]], np.float32), place)

    assert box.tolist() == [0, 0, width, height]


def test_no_boxes_stay_no_boxes() -> None:
    place = geometry_of(10, 20, PreprocessSpec(width=8, height=8, fit="letterbox"))

    assert boxes_to_source(np.empty((0, 4), np.float32), place).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), fit=_FIT)
def test_every_byte_of_the_output_is_written(width: int, height: int, fit: Literal["stretch", "letterbox"]) -> None:
    # given two outputs that start as opposite garbage
    spec = PreprocessSpec(width=37, height=23, fit=fit)
    pixels = noise(width, height)
    outs = [np.full((23, 37, 3), fill, np.uint8) for fill in (0, 255)]

    for out in outs:
        preprocess_into(pixels, spec, out)

    assert np.array_equal(*outs)


@pytest.mark.parametrize("name", list(FILTERS))
@pytest.mark.parametrize("size", [(200, 100), (20, 10), (64, 48), (3, 91)])
def test_resize_is_pillows_own(name: Resample, size: tuple[int, int]) -> None:
    spec = PreprocessSpec(width=64, height=48, fit="stretch", resample=name)
    pixels = noise(*size)

    expected = Image.fromarray(pixels).resize((64, 48), FILTERS[name])

    assert np.array_equal(preprocess(pixels, spec), np.asarray(expected))


def test_letterbox_pads_with_grey_around_pillows_resize() -> None:
    spec = PreprocessSpec(width=32, height=32, fit="letterbox")
    pixels = noise(100, 50)

    out = preprocess(pixels, spec)

    assert np.array_equal(out[8:24], np.asarray(Image.fromarray(pixels).resize((32, 16), Image.Resampling.BILINEAR)))
    assert (out[:8] == 114).all()
    assert (out[24:] == 114).all()


def test_image_of_the_right_size_is_copied_unchanged() -> None:
    pixels = noise(32, 16)

    out = preprocess(pixels, PreprocessSpec(width=32, height=16, fit="letterbox"))

    assert np.array_equal(out, pixels)
    assert not np.shares_memory(out, pixels)


def test_resized_values_are_fixed_by_a_golden() -> None:
    # The resize path decides accuracy; a change of library or filter must be seen here.
    ramp = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)

    out = preprocess(ramp, PreprocessSpec(width=3, height=3, fit="stretch"))

    assert out[:, :, 0].tolist() == [[30, 38, 45], [87, 95, 102], [144, 152, 159]]


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), fit=_FIT)
def test_mask_comes_back_at_source_size_with_its_ids(
    width: int, height: int, fit: Literal["stretch", "letterbox"]
) -> None:
    spec = PreprocessSpec(width=32, height=24, fit=fit)
    place = geometry_of(width, height, spec)
    mask = np.random.default_rng(1).choice(np.array([0, 3, 200], np.uint8), (24, 32))

    source = mask_to_source(mask, place)

    assert source.shape == (height, width)
    assert set(np.unique(source)) <= {0, 3, 200}


def test_mask_moves_through_the_same_transform_as_boxes() -> None:
    # given an object that covers the model box (12, 8) to (20, 16)
    place = geometry_of(200, 100, PreprocessSpec(width=32, height=32, fit="letterbox"))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 12:20] = 1

    rows, columns = np.nonzero(mask_to_source(mask, place))
    (box,) = boxes_to_source(np.array([[12, 8, 20, 16]], np.float32), place)

    outline = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(np.array(outline) - box).max() <= 1.0
