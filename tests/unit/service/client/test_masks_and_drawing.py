"""Masks of every form are the same pixels, and drawings show what was answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.client import Classification, Detections, Segmentation, Served
from saccade.models.contract.preprocessing import Geometry
from saccade.service.client.answers import prediction_from
from saccade.service.client.masks import MaskSource
from saccade.service.vision.segmentation import MaskFormat, polygons_of, segments_json

SERVED = Served("m", "1", "fp32", "r", {}, None)
LABELS = ("background", "cat", "dog")


def random_mask(seed: int, height: int, width: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((height, width)) < 0.4


@pytest.mark.parametrize("seed", range(8))
def test_polygons_are_filled_to_the_pixels_that_they_came_from(seed: int) -> None:
    mask = random_mask(seed, 13, 17)

    assert (MaskSource({"polygons": polygons_of(mask)}, 17, 13).read() == mask).all()


def segmentation(class_ids: NDArray[np.uint8], mask_format: MaskFormat) -> Segmentation:
    height, width = class_ids.shape
    place = Geometry(width, height, 0, 0, width, height)
    document: dict[str, Any] = {"width": width, "height": height}
    found = prediction_from(document | segments_json(class_ids, place, LABELS, 0, mask_format), SERVED)
    assert isinstance(found, Segmentation)
    return found


@pytest.mark.parametrize("mask_format", ["rle", "png", "polygon"])
def test_masks_of_every_form_are_the_servers(mask_format: MaskFormat) -> None:
    class_ids = np.random.default_rng(3).integers(0, 3, (9, 14)).astype(np.uint8)

    found = segmentation(class_ids, mask_format)

    assert [segment.label for segment in found.segments] == ["cat", "dog"]
    for segment in found.segments:
        assert segment.mask.dtype == bool
        assert (segment.mask == (class_ids == segment.class_id)).all()
        assert segment.mask.sum() == segment.area


def test_no_mask_is_made_up() -> None:
    found = segmentation(np.ones((4, 4), np.uint8), "none")

    with pytest.raises(ValueError, match="no masks"):
        _ = found.segments[0].mask


def test_segments_are_coloured_where_they_are() -> None:
    class_ids = np.zeros((8, 8), np.uint8)
    class_ids[2:5, 1:4] = 2
    picture = np.full((8, 8, 3), 100, np.uint8)

    drawn = np.asarray(segmentation(class_ids, "rle").draw(picture))

    assert ((drawn != 100).any(axis=2) == (class_ids == 2)).all()
    with pytest.raises(ValueError, match="this one is"):
        segmentation(class_ids, "rle").draw(np.zeros((9, 8, 3), np.uint8))


def test_boxes_and_masks_are_drawn_into_a_copy() -> None:
    mask = np.zeros((90, 120), bool)
    mask[60:70, 40:50] = True
    item = {"label": "cat", "class_id": 1, "score": 0.9, "box": [30.0, 50.0, 60.0, 80.0]}
    document = {"width": 120, "height": 90, "detections": [{**item, "area": 100, "polygons": polygons_of(mask)}]}
    picture = Image.new("RGB", (120, 90))
    found = prediction_from(document, SERVED)
    assert isinstance(found, Detections)

    drawn = np.asarray(found.draw(picture))

    assert drawn[75, 30].any()  # the box
    assert drawn[65, 45].any()  # the mask
    assert not drawn[88, 115].any()  # neither
    assert not np.asarray(picture).any()


def test_boxes_at_the_edge_and_turned_ones_are_drawn() -> None:
    item = {"label": "a long label that does not fit", "class_id": 99, "score": 0.9, "box": [9.0, 9.0, -2.0, -3.0]}
    found = prediction_from({"width": 8, "height": 8, "detections": [item]}, SERVED)
    assert isinstance(found, Detections)

    assert found.draw(Image.new("RGB", (8, 8))).size == (8, 8)


def test_labels_are_written_over_a_classified_picture() -> None:
    classes = [{"label": "cat", "class_id": 1, "score": 0.9}]
    found = prediction_from({"width": 64, "height": 64, "classes": classes}, SERVED)
    assert isinstance(found, Classification)

    assert np.asarray(found.draw(Image.new("RGB", (64, 64)))).any()
