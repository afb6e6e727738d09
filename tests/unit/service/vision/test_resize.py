"""The GPU's resize against the CPU's: the kernels' own text runs here as C++, so the arithmetic is the device's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.export.data.fidelity import SIZES, photograph
from saccade.models.contract.preprocessing import UInt8Array, preprocess
from saccade.models.contract.specs import PreprocessSpec, Resample
from saccade.service.errors import RuntimeMissing
from saccade.service.vision.image_decoder import UPRIGHT
from saccade.service.vision.resize_plan import JOB, DecodedImage, plan_batch
from saccade.service.worker.gpu_jpeg.kernels import compiled
from tests.support.host_kernels import COMPILER, NO_COMPILER, job_bytes, resized_on_host, run_on_host

needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

SHARE = 0.999  # of pixels within one level: the bound on preprocessing everywhere in this project
SMALLER_SIZES = [size for size in SIZES if size[0] * size[1] < 400_000]
RULES: dict[str, dict[str, Any]] = {
    "stretch": {"width": 224, "height": 224, "fit": "stretch"},
    "crop": {"width": 224, "height": 224, "fit": "crop", "shortest_edge": 256, "rounding": "floor"},
    "letterbox": {"width": 320, "height": 256, "fit": "letterbox"},
}
FILTERS: tuple[Resample, ...] = ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest")


def share_within_one_level(ours: UInt8Array, theirs: UInt8Array) -> float:
    """Of all pixels; a pixel's worst channel counts."""
    return float((np.abs(ours.astype(np.int16) - theirs).max(axis=2) <= 1).mean())


@needs_compiler
@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("rule", list(RULES))
def test_kernels_give_the_pixels_of_the_cpu_path(rule: str, resample: Resample) -> None:
    spec = PreprocessSpec(**RULES[rule], resample=resample)

    shares = []
    for seed, (width, height) in enumerate(SMALLER_SIZES):
        picture = photograph(width, height, seed)
        shares.append(share_within_one_level(resized_on_host(picture, spec), preprocess(picture, spec)))

    assert min(shares) >= SHARE, dict(zip(SMALLER_SIZES, shares, strict=True))


@needs_compiler
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(500, 375), (31, 47), (901, 67), (100, 300)])
def test_kernels_do_without_antialiasing_what_the_cpu_path_does(size: tuple[int, int], resample: Resample) -> None:
    spec = PreprocessSpec(width=96, height=64, fit="stretch", resample=resample, antialias=False)
    picture = photograph(*size, seed=1)

    assert share_within_one_level(resized_on_host(picture, spec), preprocess(picture, spec)) >= SHARE


@needs_compiler
@pytest.mark.parametrize("resample", FILTERS)
def test_image_of_the_right_size_is_copied_unchanged(resample: Resample) -> None:
    picture = photograph(97, 61, seed=2)

    out = resized_on_host(picture, PreprocessSpec(width=97, height=61, fit="stretch", resample=resample))

    assert np.array_equal(out, picture)


@needs_compiler
@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    rule=st.sampled_from(
        [
            {"fit": "letterbox"},
            {"fit": "letterbox", "anchor": "top_left", "shortest_edge": 20, "longest_edge": 30},
            {"fit": "letterbox", "multiple_of": 4},
            {"fit": "crop", "shortest_edge": 40, "rounding": "floor"},
            {"fit": "crop", "shortest_edge": 10},
            {"fit": "crop", "cover": (41, 27)},
        ]
    ),
    resample=st.sampled_from(FILTERS),
    order=st.sampled_from(["rgb", "bgr"]),
)
def test_place_bars_and_channels_are_those_of_the_cpu_path(
    width: int, height: int, rule: dict[str, Any], resample: Resample, order: str
) -> None:
    # given a soft picture, which no filter overshoots
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([60 + x, 100 + y, 128 + (x - y) / 2], axis=2).astype(np.uint8)
    spec = PreprocessSpec(width=37, height=23, resample=resample, channel_order=order, pad_value=3, **rule)

    difference = np.abs(resized_on_host(picture, spec).astype(np.int16) - preprocess(picture, spec))

    # then a pixel of another place, bar or channel would differ by more; nearest may take the neighbour at a tie
    assert difference.max() <= 2


@needs_compiler
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_are_turned_upright_while_they_are_read(orientation: int) -> None:
    stored = photograph(75, 50, seed=orientation)
    turn = UPRIGHT.get(orientation, lambda pixels: pixels)
    spec = PreprocessSpec(width=40, height=36, fit="letterbox")

    out = resized_on_host(stored, spec, orientation)

    assert share_within_one_level(out, preprocess(np.ascontiguousarray(turn(stored)), spec)) == 1.0


@needs_compiler
def test_images_of_a_batch_do_not_touch_each_other() -> None:
    spec = PreprocessSpec(width=48, height=40, fit="letterbox")
    pictures = [np.ascontiguousarray(photograph(*size, seed=3)) for size in ((90, 40), (31, 97), (48, 40), (300, 7))]
    images = [
        DecodedImage(picture.ctypes.data, picture.shape[1], picture.shape[0], picture.shape[1] * 3)
        for picture in pictures
    ]
    outs = np.full((len(images), 40, 48, 3), 99, np.uint8)

    run_on_host(plan_batch(images, spec), list(outs))

    for out, picture in zip(outs, pictures, strict=True):
        assert np.array_equal(out, resized_on_host(picture, spec))


@needs_compiler
def test_job_has_the_layout_of_the_kernels_struct() -> None:
    assert job_bytes() == JOB.itemsize


def test_equal_images_share_their_tables() -> None:
    spec = PreprocessSpec(width=32, height=32, fit="stretch")
    image = DecodedImage(0, 100, 80, 300)

    one, many = plan_batch([image], spec), plan_batch([image] * 5, spec)

    assert many.weights.size == one.weights.size
    assert many.lines_bytes == 5 * one.lines_bytes


def test_of_a_crop_only_the_rows_that_stay_are_read() -> None:
    spec = PreprocessSpec(width=224, height=224, fit="crop", shortest_edge=256, rounding="floor")

    (job,) = plan_batch([DecodedImage(0, 100, 10_000, 300)], spec).jobs

    assert job["rows"] < 200


@pytest.mark.parametrize("compute_capability", ["SM80", "SM86", "SM89", "SM90", "SM120"])
def test_kernels_compile_for_every_gpu_we_name_without_a_driver(compute_capability: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")

    assert compiled(compute_capability).startswith(b"\x7fELF")


def test_gpu_that_the_compiler_does_not_know_is_named() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")

    with pytest.raises(RuntimeMissing, match="SM1"):
        compiled("SM1")
