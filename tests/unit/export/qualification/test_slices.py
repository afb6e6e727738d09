"""Slices. Promises: the loss of one camera is caught, a good variant passes, figures are those of the slice alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.detection_evidence import SceneDetections, detect_evidence
from saccade.export.qualification.evidence import (
    ClassifyEvidence,
    Evidence,
    SegmentEvidence,
    accuracy_of,
    point_value,
)
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.qualify_report import SliceFigure
from saccade.export.qualification.slices import slice_figures
from tests.support.gated import changed, decided, failed_checks

IMAGES, CLASSES, CAMERAS = 2000, 10, 8
RNG = np.random.default_rng(7)
TRUTH = RNG.integers(0, CLASSES, IMAGES)
CAMERA = np.resize(np.arange(CAMERAS), IMAGES)
ROWS = {f"camera={each}": np.flatnonzero(each == CAMERA) for each in range(CAMERAS)}


def answers(wrong: NDArray[np.bool_]) -> ClassifyEvidence:
    return ClassifyEvidence(np.where(wrong, (TRUTH + 1) % CLASSES, TRUTH), TRUTH, CLASSES)


def failed(figures: tuple[SliceFigure, ...], **limits: float) -> list[str]:
    return failed_checks(decided(changed(slices=figures), GateThresholds(**limits)))  # type: ignore[arg-type]  # limits by name


def test_the_loss_of_one_camera_is_caught_where_the_mean_hides_it() -> None:
    fails = RNG.random(IMAGES) < 0.03
    eager, variant = answers(fails), answers(fails | ((CAMERA == 5) & (RNG.random(IMAGES) < 0.15)))

    figures = slice_figures(variant, eager, ROWS, 200)
    decision = decided(changed(slices=figures))
    (check,) = (each for each in decision.checks if each.name == "slice_drop")

    assert point_value(eager) - point_value(variant) < 0.025
    assert failed_checks(decision) == ["slice_drop"]
    assert "of 8 slices 'camera=5' (250 images) may have lost most: " in check.detail
    assert figures[0].name == "camera=5"


def test_a_camera_that_the_float_network_fails_needs_a_floor() -> None:
    eager = answers((CAMERA == 2) & (RNG.random(IMAGES) < 0.5))

    figures = slice_figures(eager, eager, ROWS, 200)

    assert failed(figures) == []
    assert failed(figures, min_slice_metric=0.9) == ["slice_floor"]


def test_a_good_variant_is_denied_in_few_resamples() -> None:
    """As good as the float network, right and wrong on other pictures as int8 is: half a per cent of each."""
    denied = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        fails, changes = rng.random(IMAGES) < 0.03, rng.random(IMAGES) < 0.005
        eager, variant = answers(fails), answers(fails ^ changes ^ (fails & (rng.random(IMAGES) < 0.1)))
        denied += failed(slice_figures(variant, eager, ROWS, 20), min_slice_metric=0.85) != []

    assert denied <= 5


def test_a_slice_too_small_to_judge_is_said_and_not_judged() -> None:
    wrong = np.zeros(IMAGES, np.bool_)
    lost = wrong.copy()
    lost[:3] = True
    rows = {"site=a": np.arange(99), "site=b": np.arange(99, IMAGES)}

    figures = slice_figures(answers(lost), answers(wrong), rows, 20)
    (check,) = (each for each in decided(changed(slices=figures)).checks if each.name == "slice_drop")
    none_left = decided(changed(slices=figures[:1]))

    assert check.passed
    assert "not judged, with fewer than 100 images: site=a (99)" in check.detail
    assert failed_checks(none_left) == ["slice_drop"]


def test_a_small_slice_fails_a_floor_that_it_surely_lies_below() -> None:
    rows = {"site=a": np.arange(60), "site=b": np.arange(60, IMAGES)}
    half = answers(np.arange(IMAGES) < 30)
    figures = slice_figures(half, half, rows, 200)

    decision = decided(changed(slices=figures), GateThresholds(min_slice_metric=0.8))
    (check,) = (each for each in decision.checks if each.name == "slice_floor")

    assert failed(figures, min_slice_metric=0.8) == ["slice_floor"]
    assert "slice 'site=a' (60 images) is 0.5000" in check.detail
    assert "not judged" not in check.detail
    assert failed(figures, min_slice_metric=0.55) == []


def test_a_floor_for_slices_without_any_slice_is_not_passed() -> None:
    assert failed([], min_slice_metric=0.5) == ["slice_drop", "slice_floor"]


def detections(images: int) -> Evidence:
    rng = np.random.default_rng(1)
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])
    truth = [SceneDetections(boxes, np.array([0, 1]), np.ones(2)) for _ in range(images)]
    found = [SceneDetections(boxes + rng.uniform(0, 4), np.array([0, 1]), rng.random(2)) for _ in range(images)]
    return detect_evidence(found, truth, 2)


KINDS = {
    "classify": ClassifyEvidence(RNG.integers(0, 3, 60), RNG.integers(0, 3, 60), 3),
    "segment": SegmentEvidence(RNG.integers(1, 9, (60, 3, 3))),
    "labels": LabelEvidence(RNG.random((60, 3)), RNG.random((60, 3)) < 0.5),
    "detect": detections(60),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_has_the_metric_of_its_images_alone(kind: str) -> None:
    evidence, rows = KINDS[kind], np.arange(5, 40, 2)
    weights = np.zeros((1, 60), np.int64)
    weights[0, rows] = 1

    part = evidence.part(rows)

    assert part.images == len(rows)
    assert point_value(part) == pytest.approx(evidence.values(weights)[0])
    assert point_value(part) != point_value(evidence)
    assert accuracy_of(part, part, 20).drop.value == 0.0
