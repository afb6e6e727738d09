"""Recorded answers: rounding is forgiven by precision, a wrong answer is not."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.models.contract.replay import (
    MOST_PICTURES,
    ReplayDamaged,
    largest_difference,
    picture_count,
    read_replay,
    replay_bytes,
    tolerance,
)
from saccade.models.contract.specs import Task

SCORES = np.array([[0.6, 0.3, 0.1]], np.float32)
IDS = np.array([[2, 0, 1]])
BOXES = np.array([[[10.0, 10, 50, 60], [20, 20, 40, 40], [0, 0, 0, 0]]], np.float32)
DETECTED = [BOXES, np.array([[0.9, 0.5, 0.01]], np.float32), IDS, np.array([2])]


def test_pictures_and_answers_come_back_by_variant() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    raw = replay_bytes(images, {"fp32": [np.zeros((2, 3), np.float32), np.ones((2, 3), np.int64)], "int8-cpu": []})

    found, answers = read_replay(raw, "fp32")
    assert (found == images).all()
    assert [(tensor.shape, tensor.dtype) for tensor in answers] == [((2, 3), np.float32), ((2, 3), np.int64)]
    assert read_replay(raw, "fp16")[1] == []
    with pytest.raises(ReplayDamaged, match="publish the version again"):
        read_replay(raw[:-40], "fp32")
    with pytest.raises(ReplayDamaged, match="one answer per picture"):
        read_replay(replay_bytes(images, {"fp32": [np.zeros((1, 3))]}), "fp32")


def test_classifier_that_ranks_equal_scores_otherwise_answers_the_same() -> None:
    expected = [np.array([[0.4, 0.4, 0.2]], np.float32), np.array([[2, 0, 1]])]

    assert largest_difference([expected[0], np.array([[0, 2, 1]])], expected, Task.CLASSIFY) == 0.0
    assert largest_difference([SCORES + 1e-5, IDS], [SCORES, IDS], Task.CLASSIFY) < tolerance("fp32")
    assert largest_difference([SCORES, IDS[:, ::-1]], [SCORES, IDS], Task.CLASSIFY) > tolerance("int8")
    assert largest_difference([SCORES * np.nan, IDS], [SCORES, IDS], Task.CLASSIFY) == float("inf")


def test_detections_are_compared_in_any_order_and_without_unsure_rows() -> None:
    boxes, scores, ids, counts = DETECTED
    order = [1, 0, 2]
    swapped = [boxes[:, order], scores, ids[:, order], counts]
    unsure = [boxes + np.array([0, 0, 9.0])[None, :, None], *DETECTED[1:]]
    moved = [boxes + 30, *DETECTED[1:]]
    other_class = [boxes, scores, ids[:, [1, 0, 2]], counts]

    assert largest_difference(swapped, DETECTED, Task.DETECT) == 0.0
    assert largest_difference(unsure, DETECTED, Task.DETECT) == 0.0
    assert largest_difference(moved, DETECTED, Task.DETECT) > tolerance("int8")
    assert largest_difference(other_class, DETECTED, Task.DETECT) > tolerance("int8")


def test_masks_are_compared_by_pixel() -> None:
    mask = np.zeros((1, 10, 10), np.int64)
    other = mask.copy()
    other[0, 0, :3] = 1

    assert largest_difference([other], [mask], Task.SEGMENT) == pytest.approx(0.03)


def test_few_pictures_are_kept_where_they_are_large() -> None:
    assert picture_count(1000) == MOST_PICTURES
    assert picture_count(3 * 1024 * 1024) == 2
    assert picture_count(10**9) == 1
