"""Agreement of two answers. Promises: matched by hand-made boxes and masks, and by a slow textbook version."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.agreement import answer_agreement, band_width, boundary_band

CLASSIFY = TaskSpec(task=Task.CLASSIFY, top_k=2)
DETECT = TaskSpec(task=Task.DETECT, max_detections=4, score_threshold=0.25)
SEGMENT = TaskSpec(task=Task.SEGMENT, background_id=0)


def detections(*rows: tuple[float, float, float, float, float, int]) -> list[np.ndarray]:
    """One image's answer from (x1, y1, x2, y2, score, class id), padded to four rows."""
    table = np.zeros((4, 6))
    table[: len(rows)] = np.array(rows).reshape(-1, 6)
    return [
        table[None, :, :4].astype(np.float32),
        table[None, :, 4].astype(np.float32),
        table[None, :, 5].astype(np.int32),
        np.array([len(rows)], np.int32),
    ]


def test_classifiers_agree_by_their_first_class() -> None:
    scores = np.zeros((4, 2), np.float32)
    found = [scores, np.array([[1, 0], [2, 0], [3, 0], [4, 0]])]
    expected = [scores, np.array([[1, 9], [2, 9], [3, 9], [5, 4]])]

    assert answer_agreement(found, expected, CLASSIFY, 10) == {"top1": 0.75}


def test_equal_boxes_agree_fully_whatever_their_order() -> None:
    first, second = (0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 2)

    found = answer_agreement(detections(second, first), detections(first, second), DETECT, 10)

    assert found == {"box_f1": 1.0, "box_iou": 1.0}


def test_boxes_match_by_class_overlap_and_once_each() -> None:
    expected = detections((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 2), (40, 40, 50, 50, 0.8, 3))
    found = detections(
        (0, 0, 10, 8, 0.9, 1),  # overlaps by 0.8: a match
        (0, 0, 10, 9, 0.5, 1),  # overlaps by 0.9 with the same box, so it is the one that counts
        (20, 20, 30, 30, 0.8, 5),  # another class
        (44, 44, 54, 54, 0.8, 3),  # overlaps too little
    )

    agreement = answer_agreement(found, expected, DETECT, 10)

    assert agreement["box_f1"] == pytest.approx(2 * 1 / 7)
    assert agreement["box_iou"] == pytest.approx(0.9)


def test_boxes_that_no_client_gets_do_not_count() -> None:
    expected = detections((0, 0, 10, 10, 0.9, 1))
    found = detections((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.2, 2))
    padding = detections((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.9, 2))
    padding[3][:] = 1

    assert answer_agreement(found, expected, DETECT, 10)["box_f1"] == 1.0
    assert answer_agreement(padding, expected, DETECT, 10)["box_f1"] == 1.0


def test_nothing_found_by_both_is_agreement_and_by_one_is_none() -> None:
    nothing, something = detections(), detections((0, 0, 10, 10, 0.9, 1))

    assert answer_agreement(nothing, nothing, DETECT, 10) == {"box_f1": 1.0, "box_iou": 1.0}
    assert answer_agreement(nothing, something, DETECT, 10) == {"box_f1": 0.0, "box_iou": 0.0}


def test_many_images_match_like_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    images, rows = 70, 12
    corners = rng.uniform(0, 60, (images, rows, 2))
    expected = [
        np.concatenate([corners, corners + 12], -1).astype(np.float32),
        rng.uniform(0.1, 1, (images, rows)).astype(np.float32),
        rng.integers(0, 3, (images, rows)).astype(np.int32),
        np.full(images, rows, np.int32),
    ]
    found = [expected[0] + rng.normal(0, 2, expected[0].shape).astype(np.float32), *expected[1:]]

    one_by_one = [
        answer_agreement([a[i : i + 1] for a in found], [a[i : i + 1] for a in expected], DETECT, 3)
        for i in range(images)
    ]
    boxes = (expected[1] >= 0.25).sum(1)
    together = answer_agreement(found, expected, DETECT, 3)

    assert together["box_f1"] == pytest.approx(
        sum(one["box_f1"] * count for one, count in zip(one_by_one, boxes, strict=True)) / boxes.sum()
    )
    assert 0.3 < together["box_f1"] < 1.0


def test_masks_agree_by_class_pixel_and_boundary() -> None:
    expected = np.zeros((1, 40, 40), np.uint8)
    expected[0, 10:30, 10:30] = 3
    shifted = np.zeros_like(expected)
    shifted[0, 10:30, 11:31] = 3

    same = answer_agreement([expected], [expected], SEGMENT, 11)
    moved = answer_agreement([shifted], [expected], SEGMENT, 11)

    assert same == {"mask_iou": 1.0, "pixels": 1.0, "boundary_iou": 1.0}
    square, background = 380 / 420, (1600 - 420) / (1600 - 380)
    assert moved["mask_iou"] == pytest.approx((square + background) / 2)
    assert moved["pixels"] == pytest.approx(1 - 40 / 1600)
    # The interior agrees, so a shift costs most where the boundary is.
    assert moved["boundary_iou"] < moved["mask_iou"]


def test_classes_without_a_pixel_say_nothing() -> None:
    empty = np.zeros((2, 8, 8), np.uint8)

    assert answer_agreement([empty], [empty], SEGMENT, 11)["mask_iou"] == 1.0


def test_band_is_what_square_erosion_removes() -> None:
    rng = np.random.default_rng(0)
    masks = np.kron(rng.random((2, 4, 5)) > 0.4, np.ones((1, 5, 5))).astype(bool)
    width = 2

    padded = np.pad(masks, ((0, 0), (width, width), (width, width)))
    eroded = np.ones_like(masks)
    for row in range(2 * width + 1):
        for column in range(2 * width + 1):
            eroded &= padded[:, row : row + masks.shape[1], column : column + masks.shape[2]]

    np.testing.assert_array_equal(boundary_band(masks, width), masks & ~eroded)
    assert (band_width(256, 256), band_width(8, 8)) == (7, 1)
