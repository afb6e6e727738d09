"""Answers that cannot be true. Promises: each kind ends in one sentence with the recipe's words; good ones in none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.qualification.plausibility import Arrays, answer_faults, raw_faults
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

SIDE, ROWS, PICTURES = 64, 6, 8
PREPROCESS = PreprocessSpec(width=SIDE, height=SIDE, fit="letterbox")
DETECT = TaskSpec(task=Task.DETECT, max_detections=ROWS, score_threshold=0.25)
CLASSIFY = TaskSpec(task=Task.CLASSIFY, top_k=2)
SEGMENT = TaskSpec(task=Task.SEGMENT)


def detections(boxes: NDArray[np.float64], score: float = 0.9) -> Arrays:
    """boxes (pictures, k, 4) as the answer of a detector, all of class 0."""
    pictures, count = boxes.shape[:2]
    padded = np.zeros((pictures, ROWS, 4), np.float32)
    padded[:, :count] = boxes
    scores = np.zeros((pictures, ROWS), np.float32)
    scores[:, :count] = score - 0.01 * np.arange(count)
    return [padded, scores, np.zeros((pictures, ROWS), np.int32), np.full(pictures, count, np.int32)]


def true_boxes() -> NDArray[np.float64]:
    """Three boxes side by side per picture (pictures, 3, 4), corners in pixels."""
    rng = np.random.default_rng(0)
    low = np.stack([np.array([0.0, 20.0, 40.0]) + rng.uniform(0, 5, (PICTURES, 3)), rng.uniform(0, 30, (PICTURES, 3))])
    return np.concatenate([low, low + rng.uniform(8, 15, (2, PICTURES, 3))]).transpose(1, 2, 0)


def as_centre_and_size(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def the_fault(answer: Arrays, task: TaskSpec = DETECT, labels: int = 2) -> str:
    (found,) = answer_faults(answer, task, PREPROCESS, labels)
    return found


def test_true_answers_have_no_fault() -> None:
    rng = np.random.default_rng(0)
    classes = [rng.uniform(0.5, 1.0, (PICTURES, 2)), rng.integers(0, 2, (PICTURES, 2))]
    masks = [rng.integers(0, 2, (PICTURES, SIDE, SIDE)).astype(np.uint8)]

    assert [*answer_faults(detections(true_boxes()), DETECT, PREPROCESS, 2)] == []
    assert [*answer_faults(classes, CLASSIFY, PREPROCESS, 2)] == []
    assert [*answer_faults(masks, SEGMENT, PREPROCESS, 2)] == []
    assert [*raw_faults("logits", [rng.normal(0, 3, (PICTURES, 10))])] == []
    assert [*raw_faults("boxes", [true_boxes(), rng.uniform(0, 1, (PICTURES, 3, 2))])] == []


@pytest.mark.parametrize(
    ("boxes", "sentence", "words"),
    [
        (true_boxes() / SIDE, "within two pixels", "units: relative"),
        (as_centre_and_size(true_boxes()), "end before they begin", "boxes: cxcywh"),
        (true_boxes() + 500.0, "outside the network's input", "`units` into `outputs`"),
        (np.repeat(true_boxes(), 2, axis=1), "suppression is missing", "suppression: {iou: 0.6}"),
        (np.broadcast_to(true_boxes()[:1], (PICTURES, 3, 4)), "every picture gets the same boxes", "`preprocess`"),
    ],
)
def test_boxes_of_another_form_are_named_with_the_words_for_the_recipe(
    boxes: NDArray[np.float64], sentence: str, words: str
) -> None:
    found = the_fault(detections(boxes))

    assert sentence in found
    assert words in found


def test_detector_whose_users_would_see_nothing_is_told_to_lower_the_threshold() -> None:
    found = the_fault(detections(true_boxes(), score=0.1))

    assert "score threshold 0.25" in found
    assert "lower `score_threshold`" in found


def test_scores_that_are_logits_are_named() -> None:
    answer = list(detections(true_boxes()))
    answer[1] = answer[1] * 5

    classes = [np.full((PICTURES, 2), 3.0) + np.arange(PICTURES)[:, None], np.zeros((PICTURES, 2), np.int32)]

    assert "scores: sigmoid" in the_fault(answer)
    assert "scores: sigmoid" in next(raw_faults("boxes", [true_boxes(), np.full((PICTURES, 3, 2), -2.0)]))
    assert "scores: logits" in the_fault(classes, CLASSIFY)


def test_one_answer_in_many_that_is_not_finite_is_found_by_its_number() -> None:
    answer = list(detections(true_boxes()))
    answer[0] = answer[0].copy()
    answer[0][5, 0, 0] = np.nan

    found = the_fault(answer)

    assert f"1 of {PICTURES} pictures are not finite" in found
    assert "number 5" in found


def test_pixel_scores_that_are_no_numbers_are_found_although_a_mask_hides_them() -> None:
    scores = np.zeros((2, 3, 8, 8), np.float32)
    scores[1, 2, 4, 4] = np.nan

    assert "pixel scores are not finite" in next(raw_faults("dense_logits", [scores]))


def test_softmax_twice_and_sigmoid_before_softmax_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (PICTURES, 10))
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    assert "scores: probabilities" in next(raw_faults("logits", [softmax.astype(np.float32)]))
    assert "has a sigmoid already" in next(raw_faults("logits", [1 / (1 + np.exp(-logits))]))


def test_softmax_in_percent_is_named_and_positive_logits_are_not() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (PICTURES, 10)).astype(np.float32)
    percent = 100 * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    assert "sum to 100 before the softmax" in next(raw_faults("logits", [percent.astype(np.float32)]))
    assert "sum to 95 before the softmax" in next(raw_faults("logits", [(percent - 0.5).astype(np.float32)]))
    assert "sum to 0.45 before the softmax" in next(raw_faults("logits", [0.0045 * percent]))
    assert [*raw_faults("logits", [logits - logits.mean(1, keepdims=True)])] == []  # a last layer that is centred
    simplex = 8.0 * (np.eye(10)[np.arange(PICTURES) % 10] - 0.1)  # the same, of a network that is sure
    assert [*raw_faults("logits", [simplex])] == []
    assert [*raw_faults("logits", [np.abs(logits)])] == []


def test_softmax_of_one_class_is_named() -> None:
    answer = [np.ones((PICTURES, 1), np.float32), np.zeros((PICTURES, 1), np.int32)]

    assert "scores: sigmoid" in the_fault(answer, TaskSpec(task=Task.CLASSIFY, top_k=1), labels=1)


def test_constant_classes_and_masks_are_named() -> None:
    classes = [np.full((PICTURES, 2), 0.5, np.float32), np.zeros((PICTURES, 2), np.int32)]
    masks = [np.ones((PICTURES, SIDE, SIDE), np.uint8)]

    assert "same class and score" in the_fault(classes, CLASSIFY)
    assert "same mask" in the_fault(masks, SEGMENT)
