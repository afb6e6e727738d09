"""Tests where an image lies in the model input, what pads it, and how boxes and masks come back to the source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.models.contract.preprocessing import (
    FloatArray,
    Geometry,
    boxes_to_source,
    geometry_of,
    mask_to_source,
    preprocess,
    preprocess_into,
    resized_size,
    unmoved,
)
from saccade.models.contract.specs import PreprocessSpec, Resample
from tests.support.pixels import FILTERS, difference, noise, picture, resized_by_pillow

_SIDE = st.one_of(st.integers(1, 64), st.integers(1, 20_000))
_RULES: tuple[dict[str, Any], ...] = (
    {"fit": "stretch"},
    {"fit": "letterbox"},
    {"fit": "letterbox", "anchor": "top_left", "shortest_edge": 29, "longest_edge": 35, "rounding": "floor"},
    {"fit": "letterbox", "anchor": "top_left", "shortest_edge": 20, "longest_edge": 30, "rounding": "floor_each"},
    {"fit": "letterbox", "multiple_of": 4},
    {"fit": "crop", "shortest_edge": 40, "rounding": "floor"},
    {"fit": "crop", "shortest_edge": 19, "crop_offset": "floor"},
    {"fit": "crop", "resize_to": (50, 20)},
    {"fit": "crop", "cover": (41, 27)},
)
_RULE = st.sampled_from(_RULES)


def spec_of(width: int, height: int, rule: dict[str, Any], **more: Any) -> PreprocessSpec:
    return PreprocessSpec(width=width, height=height, **rule, **more)


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


def test_pixels_that_are_the_input_already_stay_in_place() -> None:
    spec = PreprocessSpec(width=32, height=16, fit="stretch")

    assert unmoved(spec) == geometry_of(32, 16, spec) == Geometry(32, 16, 0, 0, 32, 16)


def test_stretch_fills_the_whole_input() -> None:
    spec = PreprocessSpec(width=32, height=16, fit="stretch")

    assert geometry_of(7, 900, spec) == Geometry(7, 900, 0, 0, 32, 16)


@pytest.mark.parametrize(
    ("size", "edges", "expected"),
    [
        ((500, 375), {"shortest_edge": 256, "rounding": "floor"}, (341, 256)),  # torchvision: int(256 * 500 / 375)
        ((375, 500), {"shortest_edge": 256, "rounding": "floor"}, (256, 341)),
        ((9, 9), {"shortest_edge": 256, "rounding": "floor"}, (256, 256)),
        ((300, 289), {"shortest_edge": 800, "rounding": "floor"}, (830, 800)),  # although 289 * (800 / 289) < 800
        ((427, 640), {"shortest_edge": 232, "rounding": "floor"}, (232, 347)),  # 347.7
        ((427, 640), {"shortest_edge": 232, "rounding": "round"}, (232, 348)),
        ((640, 480), {"cover": (142, 284)}, (379, 284)),  # timm, for an input that is not square
        ((640, 480), {"resize_to": (248, 249)}, (248, 249)),
    ],
)
def test_crop_resizes_as_the_libraries_do(
    size: tuple[int, int], edges: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert resized_size(*size, PreprocessSpec(width=128, height=224, fit="crop", **edges)) == expected


@pytest.mark.parametrize(
    ("size", "rule", "expected"),
    [
        ((640, 480), {"rounding": "floor"}, (1066, 800)),  # transformers, detectors: the shorter side decides
        ((2000, 500), {"rounding": "floor"}, (1333, 333)),  # the longer one does: exactly 333.25
        ((1335, 100), {"rounding": "floor"}, (1335, 100)),  # transformers: 99.85 is the shorter side, so it is kept
        ((300, 289), {"rounding": "floor"}, (830, 800)),
        ((300, 289), {"rounding": "floor_each"}, (830, 799)),  # torchvision, detectors: int(289 * (800 / 289))
        ((640, 480), {"rounding": "floor", "multiple_of": 16}, (1056, 800)),  # YOLOS
        ((640, 480), {"rounding": "round"}, (1067, 800)),
        ((20_000, 3), {"rounding": "floor", "multiple_of": 16}, (1328, 16)),  # a side never rounds to nothing
    ],
)
def test_letterbox_with_edges_resizes_as_detectors_do(
    size: tuple[int, int], rule: dict[str, Any], expected: tuple[int, int]
) -> None:
    spec = PreprocessSpec(width=1344, height=1344, fit="letterbox", shortest_edge=800, longest_edge=1333, **rule)

    assert resized_size(*size, spec) == expected


def test_canvas_smaller_than_the_edges_still_shows_the_whole_image() -> None:
    edges: dict[str, Any] = {"fit": "letterbox", "shortest_edge": 800, "longest_edge": 1333, "rounding": "floor"}
    spec = PreprocessSpec(width=1333, height=800, **edges)

    assert resized_size(480, 640, spec) == (600, 800)


@pytest.mark.parametrize(("offset", "left"), [("round", -2), ("floor", -1)])
def test_odd_overhang_is_cut_as_each_library_does(offset: str, left: int) -> None:
    # given three columns too many: torchvision takes round(1.5) of them on the left, transformers int(1.5)
    rule = {"width": 32, "height": 32, "fit": "crop", "resize_to": (35, 32), "crop_offset": offset}

    place = geometry_of(70, 64, PreprocessSpec.model_validate(rule))

    assert (place.left, place.top) == (left, 0)


@settings(max_examples=200, deadline=None)
@given(width=_SIDE, height=_SIDE, side=st.integers(1, 640), other=st.integers(1, 640), rule=_RULE)
def test_boxes_come_back_within_a_pixel(width: int, height: int, side: int, other: int, rule: dict[str, Any]) -> None:
    place = geometry_of(width, height, spec_of(side, other, rule))
    assert place.width >= 1
    assert place.height >= 1
    boxes = np.array([[0, 0, width, height], [width / 3, height / 4, width / 2, height]], np.float32)

    assert np.abs(boxes_to_source(to_model(boxes, place), place) - boxes).max() < 1.0


@settings(max_examples=200, deadline=None)
@given(width=_SIDE, height=_SIDE, side=st.integers(1, 640), other=st.integers(1, 640), rule=_RULE)
def test_image_lies_inside_the_input_or_is_cut_evenly(
    width: int, height: int, side: int, other: int, rule: dict[str, Any]
) -> None:
    place = geometry_of(width, height, spec_of(side, other, rule))

    for offset, covered, canvas in ((place.left, place.width, side), (place.top, place.height, other)):
        behind = canvas - covered - offset
        if rule["fit"] != "crop":
            assert offset >= 0
            assert behind >= 0
        if rule.get("anchor") != "top_left":
            assert abs(offset - behind) <= 2


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), rule=_RULE)
def test_boxes_outside_are_clipped_to_the_image(width: int, height: int, rule: dict[str, Any]) -> None:
    place = geometry_of(width, height, spec_of(64, 64, rule))

    (box,) = boxes_to_source(np.array([[-90_000, -90_000, 90_000, 90_000]], np.float32), place)

    assert box.tolist() == [0, 0, width, height]


def test_no_boxes_stay_no_boxes() -> None:
    place = geometry_of(10, 20, PreprocessSpec(width=8, height=8, fit="letterbox"))

    assert boxes_to_source(np.empty((0, 4), np.float32), place).shape == (0, 4)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    rule=_RULE,
    resample=st.sampled_from(list(FILTERS)),
    antialias=st.booleans(),
)
def test_every_byte_of_the_output_is_written(
    width: int, height: int, rule: dict[str, Any], resample: Resample, antialias: bool
) -> None:
    # given two outputs that start as opposite garbage
    smooth = antialias or resample not in ("nearest", "bilinear", "bicubic")
    spec = spec_of(37, 23, rule, resample=resample, antialias=smooth)
    pixels = noise(width, height)
    outs = [np.full((23, 37, 3), fill, np.uint8) for fill in (0, 255)]

    for out in outs:
        preprocess_into(pixels, spec, out)

    assert np.array_equal(*outs)


def test_crop_of_an_image_that_becomes_too_small_is_padded_around() -> None:
    spec = PreprocessSpec(width=20, height=16, fit="crop", shortest_edge=10, rounding="floor", pad_value=7)
    pixels = picture(20, 10)

    out = preprocess(pixels, spec)

    assert np.array_equal(out[3:13], pixels)
    assert (out[:3] == 7).all()
    assert (out[13:] == 7).all()


@pytest.mark.parametrize("rule", [{"fit": "letterbox"}, {"fit": "crop", "shortest_edge": 40}])
def test_bgr_is_rgb_backwards(rule: dict[str, Any]) -> None:
    pixels = noise(50, 40)

    rgb, bgr = (preprocess(pixels, spec_of(32, 32, rule, channel_order=order)) for order in ("rgb", "bgr"))

    assert np.array_equal(bgr, rgb[..., ::-1])


def test_letterbox_pads_with_grey_around_the_resized_image() -> None:
    spec = PreprocessSpec(width=32, height=32, fit="letterbox")
    pixels = noise(100, 50)

    out = preprocess(pixels, spec)

    assert difference(out[8:24], resized_by_pillow(pixels, (32, 16), "bilinear")) <= 1
    assert (out[:8] == 114).all()
    assert (out[24:] == 114).all()


def test_letterbox_anchored_at_the_corner_pads_behind_the_image() -> None:
    spec = PreprocessSpec(width=32, height=32, fit="letterbox", anchor="top_left", pad_value=0)
    pixels = noise(32, 16)

    out = preprocess(pixels, spec)

    assert np.array_equal(out[:16], pixels)
    assert not out[16:].any()


def test_image_of_the_right_size_is_copied_unchanged() -> None:
    pixels = noise(32, 16)

    out = preprocess(pixels, PreprocessSpec(width=32, height=16, fit="letterbox"))

    assert np.array_equal(out, pixels)
    assert not np.shares_memory(out, pixels)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), rule=_RULE)
def test_mask_comes_back_at_source_size_with_its_ids(width: int, height: int, rule: dict[str, Any]) -> None:
    place = geometry_of(width, height, spec_of(32, 24, rule))
    mask = np.random.default_rng(1).choice(np.array([0, 3, 200], np.uint8), (24, 32))

    source = mask_to_source(mask, place)

    assert source.shape == (height, width)
    assert set(np.unique(source)) <= {0, 3, 200}


@pytest.mark.parametrize(
    "rule",
    [
        {"fit": "letterbox"},
        {"fit": "letterbox", "anchor": "top_left", "shortest_edge": 15, "rounding": "floor"},
        {"fit": "crop", "shortest_edge": 40, "rounding": "floor"},
        {"fit": "crop", "shortest_edge": 24},
    ],
)
def test_mask_moves_through_the_same_transform_as_boxes(rule: dict[str, Any]) -> None:
    # given an object that covers the model box (12, 8) to (20, 16)
    place = geometry_of(200, 100, spec_of(32, 32, rule))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 12:20] = 1

    rows, columns = np.nonzero(mask_to_source(mask, place))
    (box,) = boxes_to_source(np.array([[12, 8, 20, 16]], np.float32), place)

    outline = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(np.array(outline) - box).max() <= 1.0


def test_what_a_crop_cut_away_is_outside_in_the_mask() -> None:
    # given a network that sees the middle third of an image, and a class everywhere in it
    place = geometry_of(300, 100, PreprocessSpec(width=32, height=32, fit="crop", shortest_edge=32))
    mask = np.full((32, 32), 5, np.uint8)

    source = mask_to_source(mask, place, outside=9)

    seen = np.flatnonzero(source[50] == 5)
    assert (seen[0], seen[-1]) == (100, 199)
    assert set(np.unique(source)) == {5, 9}
