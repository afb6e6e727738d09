"""Answers of the three tasks: best first, source coordinates, empty lists, masks that decode to themselves."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import Task
from saccade.service.vision.answers import not_finite
from saccade.service.vision.classification import classes_json
from saccade.service.vision.detection import detections_json
from saccade.service.vision.segmentation import MaskFormat, polygons_of, segments_json
from tests.support.versions import manifest_for

# pycocotools' decoder is older than NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = ("background", "seven", "eight")
SAME_SIZE = Geometry(40, 30, 0, 0, 40, 30)


# Classification


def test_labels_below_the_threshold_are_left_out() -> None:
    scores, class_ids = np.array([0.9, 0.5, 0.1], np.float32), np.array([2, 0, 1], np.int32)

    assert [each["class_id"] for each in classes_json(scores, class_ids, LABELS, 3, 0.5)["classes"]] == [2, 0]
    assert classes_json(scores, class_ids, LABELS, 3, 0.95) == {"classes": []}


def test_classes_are_cut_to_top_k_in_the_graphs_order() -> None:
    scores, class_ids = np.array([0.7, 0.2, 0.1], np.float32), np.array([2, 0, 1], np.int32)

    answer = classes_json(scores, class_ids, LABELS, top_k=2)

    assert answer == {
        "classes": [
            {"label": "eight", "class_id": 2, "score": 0.7},
            {"label": "background", "class_id": 0, "score": 0.2},
        ]
    }


# Detection


def detections(
    scores: list[float], count: int, threshold: float = 0.25, most: int = 10, place: Geometry = SAME_SIZE
) -> list[dict[str, Any]]:
    boxes = np.array([[index, index, index + 5, index + 5] for index in range(len(scores))], np.float32)
    class_ids = np.ones(len(scores), np.int32)
    answer = detections_json(
        boxes.reshape(-1, 4), np.array(scores, np.float32), class_ids, count, place, LABELS, threshold, most
    )
    found: list[dict[str, Any]] = answer["detections"]
    return found


def test_rows_past_the_count_are_padding() -> None:
    assert len(detections([0.9, 0.8, 0.7], count=2)) == 2


def test_no_detection_is_an_empty_list() -> None:
    assert detections([0.9], count=0) == []
    assert detections([0.1, 0.2], count=2) == []


def test_detections_are_best_first_and_cut_to_the_best() -> None:
    found = detections([0.5, 0.9, 0.7], count=3, most=2)

    assert [item["score"] for item in found] == [0.9, 0.7]
    assert [item["box"][0] for item in found] == [1.0, 2.0]


def test_score_at_the_threshold_is_answered() -> None:
    assert len(detections([0.5], count=1, threshold=0.5)) == 1


def test_boxes_are_in_source_pixels_and_inside_the_image() -> None:
    # given a 200x100 image letterboxed into 40x40: the picture lies between rows 10 and 30
    place = Geometry(200, 100, 0, 10, 40, 20)
    boxes = np.array([[10, 15, 20, 25], [-5, 0, 50, 40]], np.float32)

    answer = detections_json(
        boxes, np.array([0.9, 0.8], np.float32), np.array([1, 2], np.int32), 2, place, LABELS, 0.1, 5
    )

    assert [item["box"] for item in answer["detections"]] == [[50.0, 25.0, 100.0, 75.0], [0.0, 0.0, 200.0, 100.0]]
    assert [item["label"] for item in answer["detections"]] == ["seven", "eight"]


def test_boxes_of_a_cropped_image_are_in_source_pixels() -> None:
    # given a 300x100 image resized to 120x40, of which the input shows columns 40 to 80
    place = Geometry(300, 100, -40, 0, 120, 40)
    boxes = np.array([[0, 0, 40, 40], [10, 20, 30, 40]], np.float32)

    answer = detections_json(
        boxes, np.array([0.9, 0.8], np.float32), np.array([1, 2], np.int32), 2, place, LABELS, 0.1, 5
    )

    assert [item["box"] for item in answer["detections"]] == [[100.0, 0.0, 200.0, 100.0], [125.0, 50.0, 175.0, 100.0]]


# Segmentation

_MASKS = st.builds(
    lambda seed, height, width, share: np.random.default_rng(seed).random((height, width)) < share,
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)


@settings(max_examples=80, deadline=None)
@given(is_inside=_MASKS)
def test_run_lengths_decode_to_the_mask(is_inside: NDArray[np.bool_]) -> None:
    mask = np.where(is_inside, 2, 1).astype(np.uint8)
    place = Geometry(mask.shape[1], mask.shape[0], 0, 0, mask.shape[1], mask.shape[0])

    segments = segments_json(mask, place, ("background", "outside", "inside"), 0, "rle")["segments"]

    assert [segment["class_id"] for segment in segments] == np.unique(mask).tolist()
    for segment in segments:
        rle = segment["rle"]
        expected = mask == segment["class_id"]
        assert rle["size"] == list(mask.shape)
        assert np.array_equal(coco_mask.decode(rle), expected)
        assert rle["counts"] == coco_mask.encode(np.asfortranarray(expected, np.uint8))["counts"].decode()
        assert segment["area"] == coco_mask.area(rle) == expected.sum()


def rasterised(regions: list[dict[str, Any]], shape: tuple[int, int], scale: int = 8) -> NDArray[np.bool_]:
    """Draws polygons `scale` times larger and samples pixel centres; rings in corner coordinates."""
    height, width = shape
    canvas = Image.new("L", (width * scale, height * scale))
    draw = ImageDraw.Draw(canvas)
    for region in regions:
        for ring, fill in [(region["exterior"], 255), *((hole, 0) for hole in region["holes"])]:
            draw.polygon([(x * scale - 0.5, y * scale - 0.5) for x, y in ring], fill=fill)
    return np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale] > 127


def ring_area(ring: list[list[float]]) -> float:
    """Shoelace formula."""
    x, y = np.array(ring).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def region_area(regions: list[dict[str, Any]]) -> float:
    return sum(ring_area(item["exterior"]) - sum(ring_area(hole) for hole in item["holes"]) for item in regions)


def disc(radius: float, hole: float = 0.0, size: int = 60) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - 25, y - 32)
    inside: NDArray[np.bool_] = (distance <= radius) & (distance >= hole)
    return inside


@pytest.mark.parametrize(("radius", "hole"), [(20.0, 0.0), (22.0, 9.0), (80.0, 5.0)])
def test_polygons_draw_the_mask_again(radius: float, hole: float) -> None:
    # the last one touches every edge of the image
    is_inside = disc(radius, hole)

    regions = polygons_of(is_inside)

    drawn = rasterised(regions, is_inside.shape)
    assert (drawn & is_inside).sum() / (drawn | is_inside).sum() > 0.97
    assert region_area(regions) == pytest.approx(is_inside.sum(), rel=0.02)


def test_hole_belongs_to_its_region() -> None:
    (region,) = polygons_of(disc(22.0, 9.0))

    assert len(region["holes"]) == 1
    assert ring_area(region["holes"][0]) < ring_area(region["exterior"]) / 4


def test_island_in_a_hole_is_a_region_of_its_own() -> None:
    regions = polygons_of(disc(24.0, 14.0) | disc(6.0))

    assert sorted(len(region["holes"]) for region in regions) == [0, 1]


def test_separate_regions_have_an_entry_each() -> None:
    is_inside = np.zeros((20, 20), np.bool_)
    is_inside[2:6, 2:6] = is_inside[10:18, 10:18] = True

    regions = polygons_of(is_inside)

    assert sorted(round(ring_area(region["exterior"])) for region in regions) == [16, 64]


def test_rectangle_at_the_corner_has_its_edges_on_pixel_borders() -> None:
    is_inside = np.zeros((20, 30), np.bool_)
    is_inside[:5, :8] = True

    (region,) = polygons_of(is_inside)

    outline = np.array(region["exterior"])
    assert outline.min(axis=0).tolist() == [0.0, 0.0]
    assert outline.max(axis=0).tolist() == [8.0, 5.0]


def test_empty_mask_has_no_polygons() -> None:
    assert polygons_of(np.zeros((4, 4), np.bool_)) == []


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    """Class 1 in 4 rows of 40, class 2 in one pixel, the rest background."""
    made = np.zeros((30, 40), np.uint8)
    made[:4] = 1
    made[20, 20] = 2
    return made


@pytest.mark.parametrize("mask_format", ["rle", "png", "polygon", "none"])
def test_every_mask_format_names_the_classes_with_their_areas(mask: NDArray[np.uint8], mask_format: MaskFormat) -> None:
    answer = segments_json(mask, SAME_SIZE, LABELS, 0, mask_format)

    named = [(item["label"], item["class_id"], item["area"]) for item in answer["segments"]]
    assert named == [("seven", 1, 160), ("eight", 2, 1)]
    fields = {"rle": {"rle"}, "polygon": {"polygons"}}.get(mask_format, set())
    assert all(item.keys() == {"label", "class_id", "area"} | fields for item in answer["segments"])
    assert ("mask_png" in answer) == (mask_format == "png")


def test_png_mask_decodes_to_class_ids(mask: NDArray[np.uint8]) -> None:
    answer = segments_json(mask, SAME_SIZE, LABELS, 0, "png")

    image = Image.open(io.BytesIO(base64.b64decode(answer["mask_png"])))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), mask)


def test_segments_of_a_letterboxed_image_are_in_source_pixels() -> None:
    # given a 200x100 image in rows 10 to 30 of a 40x40 input, whose left half is class 1; the bars are class 2
    mask = np.full((40, 40), 2, np.uint8)
    mask[10:30] = 0
    mask[10:30, :20] = 1

    (segment,) = segments_json(mask, Geometry(200, 100, 0, 10, 40, 20), LABELS, 0, "rle")["segments"]

    assert segment["area"] == 100 * 100
    assert coco_mask.decode(segment["rle"])[:, :100].all()
    assert segment["rle"]["size"] == [100, 200]


@pytest.mark.parametrize(("background_id", "unseen"), [(2, 2), (None, 0)])
def test_what_a_crop_cut_away_is_background(background_id: int | None, unseen: int) -> None:
    # given a 300x100 image resized to 120x40, of which the input shows columns 40 to 80: all of them class 1
    place = Geometry(300, 100, -40, 0, 120, 40)
    mask = np.full((40, 40), 1, np.uint8)

    answer = segments_json(mask, place, LABELS, background_id, "png")

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask_png"]))))
    assert pixels.shape == (100, 300)
    assert (pixels[:, 100:200] == 1).all()
    assert (pixels[:, :100] == unseen).all()
    assert (pixels[:, 200:] == unseen).all()
    assert {item["class_id"]: item["area"] for item in answer["segments"]}[1] == 100 * 100


def test_background_only_is_an_empty_list() -> None:
    nothing = np.zeros((30, 40), np.uint8)

    assert segments_json(nothing, SAME_SIZE, LABELS, 0, "rle") == {"segments": []}


def test_model_without_a_background_reports_every_class() -> None:
    nothing = np.zeros((30, 40), np.uint8)

    (segment,) = segments_json(nothing, SAME_SIZE, LABELS, None, "none")["segments"]

    assert segment == {"label": "background", "class_id": 0, "area": 1200}


def test_an_answer_that_is_no_number_is_an_error_that_names_the_output() -> None:
    manifest = manifest_for("detector", 1, Task.DETECT)
    rows = [np.zeros(spec.shape, spec.dtype) for spec in manifest.answer]

    fine = not_finite(rows, manifest)
    rows[1][2] = np.inf
    lost = not_finite(rows, manifest)

    assert fine is None
    assert lost is not None
    assert "not finite (scores)" in str(lost)
