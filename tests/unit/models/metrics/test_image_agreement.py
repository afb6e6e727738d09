"""Agreement on one image: one figure per task, and the classes that a client gets."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.models.contract.run_lengths import MaskWindow
from saccade.models.contract.specs import MaskSpec, Task, TaskSpec
from saccade.models.metrics.image_agreement import Arrays, first_classes, image_agreement

CLASSIFY = TaskSpec(task=Task.CLASSIFY, top_k=3)
LABELS = TaskSpec(task=Task.CLASSIFY, top_k=3, multi_label=True, score_threshold=0.5)
DETECT = TaskSpec(task=Task.DETECT, max_detections=3, score_threshold=0.25)
SEGMENT = TaskSpec(task=Task.SEGMENT, background_id=0)
INSTANCES = TaskSpec(
    task=Task.INSTANCES,
    max_detections=3,
    score_threshold=0.25,
    masks=MaskSpec(form="prototypes", channels=2, width=8, height=8),
)


def classes(*pairs: tuple[int, float]) -> Arrays:
    return [np.array([score for _, score in pairs], np.float32), np.array([number for number, _ in pairs], np.int32)]


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Arrays:
    table = np.zeros((3, 6))
    table[: len(rows)] = np.array(rows).reshape(-1, 6)
    count = np.array(len(rows), np.int32)
    return [table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int32), count]


def with_mask(answer: Arrays, width: int) -> Arrays:
    runs = MaskWindow(0, 0, np.ones((10, width), np.bool_)).run_lengths(32, 32)
    return [*answer, np.array([runs.text] * 3, np.bytes_)]


def test_classifiers_agree_by_their_first_class_and_tell_how_far_its_score_moved() -> None:
    stable = classes((7, 0.9), (1, 0.05), (2, 0.05))

    same = image_agreement(classes((7, 0.7), (1, 0.2), (2, 0.1)), stable, CLASSIFY, 10)
    other = image_agreement(classes((1, 0.5), (7, 0.4), (2, 0.1)), stable, CLASSIFY, 10)
    lost = image_agreement(classes((1, 0.5), (3, 0.4), (2, 0.1)), stable, CLASSIFY, 10)

    assert [same.value, other.value, lost.value] == [1.0, 0.0, 0.0]
    assert [found.figures["score_shift"] for found in (same, other, lost)] == pytest.approx([0.2, 0.5, 0.9])


def test_labels_agree_by_f1_of_those_that_reach_the_threshold() -> None:
    found = image_agreement(classes((0, 0.9), (1, 0.8), (2, 0.1)), classes((0, 0.9), (1, 0.2), (2, 0.1)), LABELS, 3)

    assert found.value == pytest.approx(2 / 3)
    assert found.figures["score_shift"] == pytest.approx(0.6)


def test_detectors_agree_by_f1_of_what_a_client_gets_and_tell_how_far_boxes_moved() -> None:
    stable = boxes((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 2), (0, 0, 5, 5, 0.1, 3))

    found = image_agreement(boxes((0, 0, 10, 9, 0.9, 1)), stable, DETECT, 10)

    assert found.value == pytest.approx(2 / 3)
    assert found.figures["box_iou"] == pytest.approx(0.9)
    assert image_agreement(boxes(), boxes(), DETECT, 10).value == 1.0


def test_segmenters_agree_by_mean_iou_of_their_masks() -> None:
    stable, found = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    stable[:2], found[:1] = 1, 1

    agreement = image_agreement([found], [stable], SEGMENT, 3)

    assert agreement.value == pytest.approx((8 / 12 + 4 / 8) / 2)
    assert agreement.figures["pixels"] == pytest.approx(0.75)


def test_objects_with_masks_agree_by_the_worse_of_boxes_and_masks() -> None:
    row = (0, 0, 10, 10, 0.9, 1)

    found = image_agreement(with_mask(boxes(row), 5), with_mask(boxes(row), 10), INSTANCES, 10)

    assert found.figures["box_f1"] == 1.0
    assert found.value == pytest.approx(0.5)


def test_classes_that_a_client_gets_come_best_first() -> None:
    mask = np.array([[0, 0, 0], [1, 2, 2]], np.uint8)

    assert first_classes(classes((7, 0.9), (1, 0.05)), CLASSIFY) == [7]
    assert first_classes(classes((7, 0.9), (1, 0.6), (2, 0.1)), LABELS) == [7, 1]
    assert first_classes(boxes((0, 0, 1, 1, 0.5, 4), (0, 0, 1, 1, 0.9, 2), (2, 2, 3, 3, 0.4, 2)), DETECT) == [2, 4]
    assert first_classes([mask], SEGMENT) == [2, 1]
