"""Confusion and precision-recall. Promises: counted as the metric counts, and small for many classes."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.export.qualification.curves import MOST_CLASSES, confusion_of, curves_of, precision_recall
from saccade.export.qualification.detection_evidence import (
    IOU_THRESHOLDS,
    DetectEvidence,
    SceneDetections,
    detect_evidence,
)
from saccade.export.qualification.evidence import ClassifyEvidence, SegmentEvidence


def scenes(seed: int, count: int = 20, classes: int = 3) -> tuple[list[SceneDetections], list[SceneDetections]]:
    """Truth, and detections that are near it, missing or made up."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(count):
        corners = rng.uniform(0, 80, (4, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (4, 2))], axis=1)
        ids = rng.integers(0, classes - 1, 4)  # the last class never occurs
        truth.append(SceneDetections(boxes, ids, np.ones(4)))
        kept = rng.random(4) < 0.8
        moved = np.concatenate([boxes[kept] + rng.normal(0, 2, (kept.sum(), 4)), rng.uniform(0, 40, (1, 4))])
        found.append(SceneDetections(moved, np.append(ids[kept], rng.integers(0, classes)), rng.random(kept.sum() + 1)))
    return found, truth


def evidence(seed: int = 0) -> DetectEvidence:
    return detect_evidence(*scenes(seed), 3)


def test_classifier_s_matrix_counts_images_by_truth_and_answer() -> None:
    found = curves_of(ClassifyEvidence(np.array([0, 1, 1, 2, 0]), np.array([0, 0, 1, 2, 2]), 3)).confusion

    assert found is not None
    assert found.unit == "images"
    assert found.counts == ((1, 1, 0), (0, 1, 0), (1, 0, 1))
    assert (found.recall, found.precision) == ((0.5, 1.0, 0.5), (0.5, 0.5, 1.0))


def test_answer_beyond_the_labels_is_in_no_column() -> None:
    found = ClassifyEvidence(np.array([0, 7]), np.array([0, 1]), 2)

    assert found.confusion().tolist() == [[1, 0], [0, 0]]
    assert found.correct.tolist() == [True, False]


def test_segmenter_s_matrix_sums_the_pixels_of_all_images() -> None:
    found = curves_of(SegmentEvidence(np.array([[[5, 1], [0, 4]], [[3, 0], [2, 6]]]))).confusion

    assert found is not None
    assert (found.unit, found.counts) == ("pixels", ((8, 1), (2, 10)))


def test_most_frequent_mistakes_come_first_and_zeros_never() -> None:
    found = confusion_of(np.array([[9, 1, 0], [4, 6, 0], [0, 0, 0]]), "images")

    assert [(pair.truth, pair.found, pair.count, pair.share) for pair in found.pairs] == [
        (1, 0, 4, 0.4),
        (0, 1, 1, 0.1),
    ]
    assert found.recall[2] is None


def test_of_many_classes_those_with_mistakes_are_kept() -> None:
    counts = np.diag(np.full(1000, 5))
    counts[700, 3] = 2

    found = confusion_of(counts, "images")

    assert len(found.class_ids) == len(found.counts) == MOST_CLASSES
    assert {3, 700} <= set(found.class_ids)
    assert len(found.recall) == 1000


@pytest.mark.parametrize("seed", range(3))
def test_area_under_the_curves_is_the_metric(seed: int) -> None:
    figures = evidence(seed)

    areas = [precision_recall(figures, iou) for iou in IOU_THRESHOLDS]

    by_class = np.mean([np.mean(each.by_class, axis=1) for each in areas], axis=0)
    assert by_class == pytest.approx(figures.per_class()[:2], abs=1e-4)
    means = np.mean([np.mean(each.mean) for each in areas])
    assert means == pytest.approx(np.nanmean(figures.per_class()), abs=1e-4)


def test_curves_fall_and_the_stricter_overlap_is_never_above() -> None:
    loose, strict = curves_of(evidence()).precision_recall

    assert (loose.iou, strict.iou) == (0.5, 0.75)
    assert (np.diff(loose.by_class, axis=1) <= 0).all()
    assert (np.array(strict.by_class) <= np.array(loose.by_class)).all()


def test_class_that_never_occurs_has_no_curve() -> None:
    found = precision_recall(evidence(), 0.5)

    assert found.class_ids == (0, 1)
    assert found.average_precision[2] is None


def test_detector_that_finds_nothing_has_a_flat_curve() -> None:
    nothing = SceneDetections(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    truth = SceneDetections(np.array([[0.0, 0.0, 9.0, 9.0]]), np.array([0]), np.ones(1))

    assert set(precision_recall(detect_evidence([nothing], [truth], 1), 0.5).mean) == {0.0}
