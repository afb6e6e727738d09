"""Classification and segmentation metrics. Promises held here: hand-computed values, parts that add up."""

import numpy as np
import pytest

from saccade.models.metrics.metrics import confusion_matrix, mean_iou, top1, top1_correct


def test_top1_is_the_share_of_best_classes_that_are_right() -> None:
    correct = top1_correct(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 0, 0]))
    assert correct.tolist() == [True, True, False]
    assert top1(correct) == pytest.approx(2 / 3)


def test_confusion_counts_truth_in_rows_and_predictions_in_columns() -> None:
    truth = np.array([[0, 0], [1, 2]], np.uint8)
    predicted = np.array([[0, 1], [1, 1]], np.uint8)
    assert confusion_matrix(predicted, truth, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]


def test_mean_iou_counts_background_and_skips_absent_classes() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1], np.uint8)
    predicted = np.array([0, 0, 1, 1, 1, 1], np.uint8)
    assert mean_iou(confusion_matrix(predicted, truth, 5)) == pytest.approx((2 / 3 + 3 / 4) / 2)


def test_confusions_of_images_add_up_to_that_of_all() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 11, (2, 6, 32, 32), dtype=np.uint8)
    parts = sum(confusion_matrix(predicted[i], truth[i], 11) for i in range(6))
    assert np.array_equal(parts, confusion_matrix(predicted, truth, 11))


def test_mean_iou_of_nothing_is_zero() -> None:
    assert mean_iou(np.zeros((3, 3), np.int64)) == 0.0
