"""Quality of pictures. Promises: what is blurred, badly exposed or small is said to be, and little else is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from saccade.models.contract.preprocessing import Geometry, preprocess_into
from saccade.models.contract.quality import measures_of, quality_of, ranges_of
from saccade.models.contract.specs import PreprocessSpec

SIDE = 64
WHOLE = Geometry(200, 160, 0, 0, SIDE, SIDE)
STRETCHED = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")
LETTERBOX = PreprocessSpec(width=SIDE, height=SIDE, fit="letterbox")


def scene(seed: int, width: int = 200, height: int = 160) -> Image.Image:
    """Patches of every size, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        )
        for n in (3, 9, 27, 81)
    ]
    return Image.fromarray(np.mean(layers, 0).astype(np.uint8))


def given(image: Image.Image, spec: PreprocessSpec = STRETCHED) -> tuple[NDArray[np.uint8], Geometry]:
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    return pixels, preprocess_into(np.asarray(image), spec, pixels)


RANGES = ranges_of(*zip(*(given(scene(seed)) for seed in range(150)), strict=True))


def test_pictures_like_the_networks_own_are_good() -> None:
    found = [quality_of(*given(scene(seed)), RANGES) for seed in range(1000, 1100)]

    assert sum(bool(each.reasons) for each in found) <= 3
    assert np.median([each.score for each in found]) > 0.9


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (lambda image: image.filter(ImageFilter.GaussianBlur(12)), "blurred: its edges have "),
        (lambda image: image.point(lambda level: level // 60), "badly exposed: 0.0% of it is neither black nor white"),
        (lambda image: image.point(lambda level: min(255, level * 4)), "badly exposed: "),
        (
            lambda image: image.resize((50, 40)),
            "small: its shorter side has 40 pixels, and the network's own pictures have 160",
        ),
    ],
)
def test_what_is_wrong_is_named(spoilt: object, reason: str) -> None:
    for seed in range(2000, 2010):
        found = quality_of(*given(spoilt(scene(seed))), RANGES)  # type: ignore[operator]  # a function of an image

        assert any(text.startswith(reason) for text in found.reasons), found
        assert found.score < 0.75


def test_the_score_falls_with_blur() -> None:
    scores = [
        quality_of(*given(scene(5).filter(ImageFilter.GaussianBlur(radius))), RANGES).score
        for radius in (0, 2, 4, 8, 16)
    ]

    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


def test_the_border_of_a_letterbox_is_no_part_of_the_picture() -> None:
    wide = scene(6, 256, 64)
    pixels, geometry = given(wide, LETTERBOX)

    found = measures_of(pixels, geometry)

    assert found["exposure"] == 1.0
    assert found["size"] == 64
    assert found == measures_of(pixels[geometry.top : geometry.top + geometry.height], geometry._replace(top=0))


@pytest.mark.parametrize("sides", [(1, 1), (1, 64), (2, 3)])
def test_pictures_without_an_inside_have_no_edges(sides: tuple[int, int]) -> None:
    width, height = sides
    pixels = np.full((height, width, 3), 128, np.uint8)

    found = quality_of(pixels, Geometry(width, height, 0, 0, width, height), RANGES)

    assert found.score == 0.0
    assert any(text.startswith("small") for text in found.reasons)


def test_a_network_of_flat_pictures_finds_no_fault_with_them() -> None:
    flat = np.full((SIDE, SIDE, 3), 128, np.uint8)
    ranges = ranges_of([flat, flat], [WHOLE, WHOLE])

    assert quality_of(flat, WHOLE, ranges) == (1.0, ())


def test_sharpness_agrees_with_a_metric_of_blur_that_needs_no_reference() -> None:
    """`blur_effect` of scikit-image (Crete et al., SPIE 2007) on photographs, as they are and blurred."""
    measure = pytest.importorskip("skimage.measure", reason="scikit-image comes with the extra `corruptions`")
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = [], []
    for photograph in images:
        for left in range(0, 480, 160):
            for radius in (0.0, 0.7, 1.5, 3.0, 6.0):
                crop = Image.fromarray(photograph[100:260, left : left + 160])
                pixels, geometry = given(crop.filter(ImageFilter.GaussianBlur(radius)))
                ours.append(measures_of(pixels, geometry)["sharpness"])
                theirs.append(measure.blur_effect(pixels, channel_axis=2))

    assert stats.spearmanr(ours, theirs).statistic < -0.75
