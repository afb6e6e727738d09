"""Chance. Promises: the yardstick is the best answer that looks at no picture, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample, DetectSample, Sample, SegmentSample
from saccade.export.qualification.accuracy import evidence_of
from saccade.export.qualification.chance import Chance, chance_of
from saccade.models.contract.preprocessing import geometry_of
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

SIDE = 32
PREPROCESS = PreprocessSpec(width=SIDE, height=SIDE, fit="letterbox")
LABELS = ("nothing", "cat", "dog")


def chance(answer: Sequence[NDArray[Any]], samples: Sequence[Sample], task: TaskSpec) -> Chance:
    geometries = [geometry_of(SIDE, SIDE, PREPROCESS)] * len(samples)
    images = np.zeros((len(samples), SIDE, SIDE, 3), np.uint8)
    split = ImageSplit("test", samples, images, geometries, ("",) * len(samples))
    return chance_of(answer, evidence_of(answer, split, task, len(LABELS)), split, task, LABELS)


def test_the_majority_class_is_the_guess_of_a_classifier() -> None:
    samples = [ClassSample(b"", class_id) for class_id in (1, 1, 1, 2)]
    answer = [np.ones((4, 1)), np.full((4, 1), 2)]

    found = chance(answer, samples, TaskSpec(task=Task.CLASSIFY, top_k=1))

    assert found == Chance(0.75, "always answering 'cat'")


def test_one_class_for_every_pixel_is_the_guess_of_a_segmenter() -> None:
    masks = [np.zeros((SIDE, SIDE), np.uint8) for _ in range(4)]
    for place, mask in enumerate(masks):
        mask[8 * place : 8 * place + 8] = 1  # a quarter, in another place in each picture
    found = chance([np.stack(masks)], [SegmentSample(b"", mask) for mask in masks], TaskSpec(task=Task.SEGMENT))

    assert found.guess == "calling every pixel 'nothing'"
    assert found.value == pytest.approx(0.75 / 2)


def test_guess_of_a_segmenter_counts_the_truth_and_not_its_answers() -> None:
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:8] = 1
    answer = np.ones((4, SIDE, SIDE), np.uint8)

    found = chance([answer], [SegmentSample(b"", truth)] * 4, TaskSpec(task=Task.SEGMENT))

    assert found == Chance(0.75 / 2, "calling every pixel 'nothing'")


def test_truth_without_any_foreground_is_guessed_perfectly() -> None:
    masks = [np.zeros((SIDE, SIDE), np.uint8)] * 3

    found = chance([np.stack(masks)], [SegmentSample(b"", mask) for mask in masks], TaskSpec(task=Task.SEGMENT))

    assert found.value == 1.0


def detector_chance(truth: Sequence[list[float]]) -> Chance:
    """Of a detector that is always right."""
    boxes = np.array([[box] for box in truth], np.float32)
    count = len(truth)
    answer = [boxes, np.full((count, 1), 0.9), np.ones((count, 1), np.int32), np.ones(count, np.int32)]
    samples = [DetectSample(b"", each, np.array([1])) for each in boxes]
    return chance(answer, samples, TaskSpec(task=Task.DETECT, max_detections=1))


def test_objects_that_always_lie_in_the_same_place_need_no_picture() -> None:
    same = detector_chance([[4.0, 4.0, 20.0, 20.0]] * 4)
    apart = detector_chance([[8.0 * place, 0.0, 8.0 * place + 8.0, 8.0] for place in range(4)])

    assert same.value == pytest.approx(1.0)
    assert "next one" in same.guess
    assert apart.value == 0.0
