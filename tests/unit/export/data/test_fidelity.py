"""The server's pixels against the libraries' own transforms, and what the report says where they cannot agree.

Processors are built from their classes' defaults: nothing is downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.fidelity import SIZES, FidelityReport, measure_fidelity, photograph
from saccade.export.network import LibraryTransform
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import Normalisation, PreprocessSpec

SMALL = [(width, height) for width, height in SIZES if width * height <= 320_000]  # seconds instead of minutes
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CROP: dict[str, Any] = {"fit": "crop", "rounding": "floor", "pad_value": 0}
CENTRED: dict[str, Any] = {**CROP, "crop_offset": "floor"}  # transformers' centre crop
DETR: dict[str, Any] = {"fit": "letterbox", "shortest_edge": 160, "longest_edge": 266, "anchor": "top_left"}


def square(side: int, **rule: Any) -> PreprocessSpec:
    return PreprocessSpec(width=side, height=side, **rule)


def torchvision_preset(name: str, **arguments: Any) -> LibraryTransform:
    from torchvision.transforms import InterpolationMode, _presets

    if "interpolation" in arguments:
        arguments["interpolation"] = InterpolationMode(arguments["interpolation"])
    preset = getattr(_presets, name)(**arguments)
    return lambda image: preset(image).numpy()


def torchvision_detector(side: int, most: int, **arguments: Any) -> LibraryTransform:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform
    from torchvision.transforms.functional import to_tensor

    transform = GeneralizedRCNNTransform(side, most, list(IMAGENET.mean), list(IMAGENET.std), **arguments).eval()

    def run(image: Image.Image) -> NDArray[np.float32]:
        images, _ = transform([to_tensor(image)])
        pixels: NDArray[np.float32] = images.tensors[0].numpy()
        return pixels

    return run


def timm_transform(**arguments: Any) -> LibraryTransform:
    from timm.data import create_transform

    transform = create_transform((3, 96, 96), mean=IMAGENET.mean, std=IMAGENET.std, **arguments)
    return lambda image: transform(image).numpy()


def transformers_processor(name: str, **arguments: Any) -> LibraryTransform:
    import transformers

    processor = getattr(transformers, f"{name}ImageProcessor")(
        **{"image_mean": IMAGENET.mean, "image_std": IMAGENET.std, "do_normalize": True} | arguments
    )
    return lambda image: np.asarray(processor(image, return_tensors="np")["pixel_values"][0])


CASES: dict[str, tuple[PreprocessSpec, Callable[[], LibraryTransform]]] = {
    "torchvision bilinear": (
        square(96, shortest_edge=110, **CROP),
        lambda: torchvision_preset("ImageClassification", crop_size=96, resize_size=110),
    ),
    "torchvision bicubic": (
        square(96, shortest_edge=96, resample="bicubic", **CROP),
        lambda: torchvision_preset("ImageClassification", crop_size=96, resize_size=96, interpolation="bicubic"),
    ),
    "torchvision nearest": (
        square(96, shortest_edge=110, resample="nearest", **CROP),
        lambda: torchvision_preset("ImageClassification", crop_size=96, resize_size=110, interpolation="nearest"),
    ),
    "torchvision crop larger than the image": (
        square(128, shortest_edge=101, **CROP),
        lambda: torchvision_preset("ImageClassification", crop_size=128, resize_size=101),
    ),
    "torchvision Faster R-CNN": (
        square(288, antialias=False, rounding="floor_each", **DETR),
        lambda: torchvision_detector(160, 266),
    ),
    "torchvision SSD": (
        square(96, fit="stretch", antialias=False),
        lambda: torchvision_detector(96, 96, size_divisible=1, fixed_size=(96, 96)),
    ),
    "timm bicubic 0.875": (
        square(96, shortest_edge=109, resample="bicubic", **CROP),
        lambda: timm_transform(interpolation="bicubic", crop_pct=0.875),
    ),
    "timm bilinear 1.0": (
        square(96, shortest_edge=96, **CROP),
        lambda: timm_transform(interpolation="bilinear", crop_pct=1.0),
    ),
    "timm squash": (
        square(96, fit="crop", resize_to=(106, 106), resample="bicubic", pad_value=0),
        lambda: timm_transform(interpolation="bicubic", crop_pct=0.9, crop_mode="squash"),
    ),
    "timm border": (
        square(96, fit="letterbox", resample="bicubic"),
        lambda: timm_transform(interpolation="bicubic", crop_pct=1.0, crop_mode="border"),
    ),
    "transformers ViT": (
        square(96, fit="stretch"),
        lambda: transformers_processor("ViT", size={"height": 96, "width": 96}),
    ),
    "transformers ConvNeXt": (
        square(96, shortest_edge=109, resample="bicubic", **CENTRED),
        lambda: transformers_processor("ConvNext", size={"shortest_edge": 96}),
    ),
    "transformers LeViT": (
        square(96, shortest_edge=109, resample="bicubic", **CENTRED),
        lambda: transformers_processor("Levit", size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}),
    ),
    "transformers DETR": (
        square(266, rounding="floor", **DETR),
        lambda: transformers_processor("Detr", size={"shortest_edge": 160, "longest_edge": 266}),
    ),
    "transformers YOLOS": (
        square(266, rounding="floor", multiple_of=16, **DETR),
        lambda: transformers_processor("Yolos", size={"shortest_edge": 160, "longest_edge": 266}),
    ),
    "transformers SegFormer": (
        square(96, fit="stretch"),
        lambda: transformers_processor("Segformer", size={"height": 96, "width": 96}),
    ),
    "transformers DPT": (
        square(96, fit="stretch", resample="bicubic"),
        lambda: transformers_processor("DPT", size={"height": 96, "width": 96}),
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", list(CASES))
def test_server_feeds_what_the_library_would(case: str) -> None:
    spec, build = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm and transformers warn about their own deprecations while importing
        transform = build()

        report = measure_fidelity(spec, IMAGENET, transform, case, SMALL)

    assert report.failures == ()
    assert report.beyond_canvas == ()
    assert report.images >= 20
    assert report.share_within_one_level >= 0.999
    assert report.reaches(0.999)


def ours(spec: PreprocessSpec) -> LibraryTransform:
    """A library that does exactly what the server does."""
    return lambda image: _normalised(preprocess(np.asarray(image), spec))


def _normalised(pixels: NDArray[Any]) -> NDArray[np.float32]:
    mean, std = np.array([IMAGENET.mean, IMAGENET.std], np.float32)
    scaled = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def report_on(spec: PreprocessSpec, transform: LibraryTransform) -> FidelityReport:
    return measure_fidelity(spec, IMAGENET, transform, sizes=SMALL)


def test_equal_pixels_differ_by_nothing() -> None:
    spec = square(64, shortest_edge=70, **CROP)

    report = report_on(spec, ours(spec))

    assert (report.share_within_one_level, report.worst_image_share, report.max_difference) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "change", [{"resample": "nearest"}, {"antialias": False}, {"shortest_edge": 72}, {"channel_order": "bgr"}]
)
def test_another_rule_than_the_librarys_is_seen(change: dict[str, Any]) -> None:
    spec = square(64, shortest_edge=70, **CROP)

    report = report_on(spec, ours(spec.model_copy(update=change)))

    assert not report.reaches(0.999)
    assert report.failures == ()
    assert report.max_difference > 1


def test_another_pad_value_of_a_crop_is_seen() -> None:
    spec = square(64, shortest_edge=50, **CROP)

    assert not report_on(spec, ours(spec.model_copy(update={"pad_value": 9}))).reaches(0.999)


def test_one_wrong_image_is_named() -> None:
    spec = square(64, fit="stretch")

    def transform(image: Image.Image) -> NDArray[np.float32]:
        pixels = preprocess(np.asarray(image), spec)
        return _normalised(255 - pixels if image.size == (301, 257) else pixels)

    report = report_on(spec, transform)

    assert report.worst_image == "301x257"
    assert report.worst_image_share < 0.1 < report.share_within_one_level


def test_other_sizes_are_failures_with_both_sizes() -> None:
    report = report_on(square(64, fit="stretch"), ours(square(48, fit="stretch")))

    assert report.images == 0
    assert "500x375: the library gives 48x48, we 64x64" in report.failures
    assert not report.reaches(0.0)


def test_letterboxed_size_that_differs_by_a_pixel_is_a_failure() -> None:
    spec = square(266, rounding="floor", **DETR)

    report = report_on(spec, torchvision_detector(159, 266, size_divisible=1))

    assert "500x375: the library gives 212x159, we 213x160" in report.failures


def test_library_output_beyond_the_canvas_is_counted_apart() -> None:
    spec = square(160, rounding="floor", **DETR)

    report = report_on(spec, torchvision_detector(160, 266, size_divisible=1))

    assert "500x375: the library gives 213x160, the input of the graph is 160x160" in report.beyond_canvas


def test_library_that_fails_is_reported_not_raised() -> None:
    def transform(image: Image.Image) -> NDArray[np.float32]:
        raise ZeroDivisionError("no rows left")

    report = report_on(square(64, fit="stretch"), transform)

    assert len(report.failures) >= 20
    assert report.failures[0] == "500x375: no rows left"


def test_images_are_the_same_every_time_and_use_all_levels() -> None:
    picture = photograph(301, 257, seed=9)

    assert picture.shape == (257, 301, 3)
    assert np.array_equal(picture, photograph(301, 257, seed=9))
    assert len(np.unique(picture)) > 200
