"""Masks of detections. Promises: the libraries' own masks, pixel by pixel, whatever was done to the picture before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torchvision.models.detection.roi_heads import paste_masks_in_image

from saccade.models.contract.instance_masks import mask_windows
from saccade.models.contract.preprocessing import Geometry, boxes_to_source, geometry_of, unmoved
from saccade.models.contract.specs import MaskSpec, PreprocessSpec
from tests.support.library_masks import upsampled_masks

SIZE = (64, 48)  # width, height
CELLS = (16, 12)
SPEC = PreprocessSpec(width=SIZE[0], height=SIZE[1], fit="letterbox")
ROWS = np.arange(8)


def random_boxes(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """(8, 4): some reach beyond the picture, one lies beside it, one has no area."""
    corner = rng.uniform(-10, min(width, height) - 10, (8, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 40, (8, 2))], 1).astype(np.float32)
    boxes[6] = (width + 5, 3, width + 9, 20)
    boxes[7] = (9.5, 4.5, 9.5, 4.5)
    return boxes


def prototype_answer(seed: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    prototypes = functional.interpolate(torch.from_numpy(rng.normal(size=(1, 5, 4, 5))), CELLS[::-1], mode="bicubic")
    empty = np.zeros(0, np.float32)
    coefficients = rng.normal(size=(8, 5)).astype(np.float32)
    return [random_boxes(rng, *SIZE), empty, empty, empty, coefficients, prototypes[0].numpy().astype(np.float32)]


@pytest.mark.parametrize("source", [SIZE, (200, 100), (31, 44), (640, 480)])
@pytest.mark.parametrize("form", ["prototypes", "queries"])
def test_masks_of_prototypes_are_the_library_s_at_the_nearest_pixel(source: tuple[int, int], form: str) -> None:
    answer = prototype_answer(sum(source))
    boxes = answer[0] if form == "prototypes" else np.tile(np.array([0, 0, *SIZE], np.float32), (8, 1))
    expected = upsampled_masks(answer[4], answer[5], boxes, SIZE)
    place = geometry_of(*source, SPEC)
    lines = np.floor((np.arange(source[1]) + 0.5) * (place.height / source[1])).astype(int) + place.top
    columns = np.floor((np.arange(source[0]) + 0.5) * (place.width / source[0])).astype(int) + place.left
    masks = MaskSpec.model_validate({"form": form, "width": CELLS[0], "height": CELLS[1], "channels": 5})

    found = mask_windows(answer, ROWS, masks, SIZE, place)

    assert 0 < sum(mask.any() for mask in expected) <= 8
    for window, mask in zip(found, expected, strict=True):
        assert np.array_equal(window.whole(source[1], source[0]), mask[np.ix_(lines, columns)])


def test_pixels_that_a_crop_cut_away_belong_to_nothing() -> None:
    answer = prototype_answer(0)
    answer[5] = np.ones_like(answer[5])
    answer[4] = np.ones_like(answer[4])
    masks = MaskSpec(form="queries", width=CELLS[0], height=CELLS[1], channels=5)

    (window,) = mask_windows(answer, ROWS[:1], masks, SIZE, Geometry(128, 48, -32, 0, 128, 48))

    assert (window.left, window.top) == (32, 0)
    assert window.pixels.shape == (48, 64)
    assert window.pixels.all()


def test_masks_of_boxes_are_torchvision_s() -> None:
    rng = np.random.default_rng(7)
    boxes = random_boxes(rng, 90, 70)
    cells = functional.avg_pool2d(torch.from_numpy(rng.random((8, 1, 28, 28))), 7, 1, 3).float()
    place = Geometry(90, 70, 0, 0, 90, 70)
    inside = torch.from_numpy(boxes_to_source(boxes, place))  # the library clips its boxes, too
    expected = paste_masks_in_image(cells, inside, (70, 90))[:, 0].numpy() > 0.5
    empty = np.zeros(0, np.float32)

    found = mask_windows(
        [boxes, empty, empty, empty, cells[:, 0].numpy()],
        ROWS,
        MaskSpec(form="boxes", width=28, height=28),
        (90, 70),
        place,
    )

    assert expected.any((1, 2)).sum() > 4
    for window, mask in zip(found, expected, strict=True):
        assert np.array_equal(window.whole(70, 90), mask)


def test_an_answer_without_rows_has_no_masks() -> None:
    masks = MaskSpec(form="prototypes", width=CELLS[0], height=CELLS[1], channels=5)

    assert mask_windows(prototype_answer(1), ROWS[:0], masks, SIZE, unmoved(SPEC)) == []
