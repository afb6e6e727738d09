"""Detectors at their threshold. Promises: what users see is what is counted; other tasks have no such point."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.export.qualification.detection_evidence import SceneDetections, detect_evidence
from saccade.export.qualification.evidence import ClassifyEvidence, point_value
from saccade.export.qualification.operating_point import (
    at_threshold,
    best_threshold,
    operating_accuracy,
    shares_of,
    threshold_faults,
)

TRUE = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
ELSEWHERE = np.array([[50.0, 50.0, 60.0, 60.0]])
IDS = np.zeros(3, np.int64)
TRUTH = [SceneDetections(TRUE, IDS[:2], np.ones(2))] * 4
# Both objects, and a box beside them with a score between the two.
FOUND = detect_evidence(
    [SceneDetections(np.concatenate([TRUE, ELSEWHERE]), IDS, np.array([0.9, 0.3, 0.5]))] * 4, TRUTH, classes=1
)


def test_only_what_reaches_the_threshold_counts() -> None:
    everything, most = shares_of(FOUND), at_threshold(FOUND, 0.6)

    assert (everything.precision, everything.recall) == (pytest.approx(2 / 3), 1.0)
    assert everything.f1 == pytest.approx(0.8)
    assert most is not None
    assert (shares_of(most).precision, shares_of(most).recall) == (1.0, 0.5)


def test_a_detection_at_the_threshold_is_shown_as_the_service_shows_it() -> None:
    kept = at_threshold(FOUND, 0.5)

    assert kept is not None
    assert sorted(set(kept.scores.tolist())) == [0.5, 0.9]


def test_the_metric_at_the_threshold_stands_beside_the_one_at_every_score() -> None:
    found = operating_accuracy(FOUND, FOUND, 0.6, 50)

    assert found is not None
    point, accuracy = found
    assert point.score_threshold == 0.6
    assert point.metric.value == accuracy.value.value < point_value(FOUND)
    assert accuracy.drop.value == 0.0


def test_other_tasks_have_no_operating_point() -> None:
    classes = ClassifyEvidence(IDS, IDS, 2)

    assert operating_accuracy(classes, classes, 0.25, 50) is None


def test_the_threshold_with_the_best_f1_is_the_one_that_drops_no_object() -> None:
    threshold, shares = best_threshold(FOUND)

    assert threshold <= 0.3
    assert shares.f1 == pytest.approx(0.8)


def test_a_threshold_that_shows_everything_is_named_with_a_better_one() -> None:
    noise = np.random.default_rng(0).uniform(100, 200, (40, 2)).repeat(2, axis=0).reshape(-1, 4)
    noise[:, 2:] += 9.0
    boxes, scores = np.concatenate([TRUE, noise]), np.concatenate([[0.9, 0.9], np.full(len(noise), 0.3)])
    shown = detect_evidence([SceneDetections(boxes, np.zeros(len(boxes), np.int64), scores)] * 4, TRUTH, classes=1)

    (fault,) = threshold_faults(shown, 0.25)

    assert "F1 is 0.09 (precision 0.05, recall 1.00), and 1.00 at 0.65" in fault
    assert "Write `score_threshold: 0.65` into `task`" in fault
    assert [*threshold_faults(shown, 0.5)] == [*threshold_faults(FOUND, 0.25)] == []
