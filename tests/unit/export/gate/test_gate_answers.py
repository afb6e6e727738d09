"""The gate on answers. Promises: a reference that means nothing, or answers that cannot be true, deny in a sentence."""

from __future__ import annotations

import re

import pytest
import yaml

from saccade.export.gate.decision import denial_text
from saccade.export.gate.limits import GateThresholds, LibraryAgreement, looser_limits
from saccade.export.qualification.qualify_report import (
    LibraryFigure,
    MetricDrop,
    QualifyReport,
    ReferenceFigure,
)
from saccade.models.contract.manifest import OperatingPoint
from tests.support.gated import (
    GOOD,
    INT8,
    METRIC,
    ON_DEVICE,
    SPARSE,
    changed,
    decided,
    failed_checks,
)

# Whether the reference means anything


def reference(low: float = 0.97, chance: float = 0.2, **changes: object) -> ReferenceFigure:
    figure = METRIC.model_copy(update={"ci_low": low})
    return ReferenceFigure(metric=figure, chance=chance, guess="always answering 'cat'").model_copy(update=changes)


@pytest.mark.parametrize(("low", "chance"), [(0.19, 0.2), (0.21, 0.2), (0.97, 1.0)])
def test_a_reference_that_guessing_reaches_denies_in_one_sentence(low: float, chance: float) -> None:
    decision = decided(changed(reference=reference(low, chance)))

    assert failed_checks(decision) == ["better_than_guessing"]
    assert "no better than guessing" in denial_text("fp32", decision)
    assert "always answering 'cat'" in denial_text("fp32", decision)


@pytest.mark.parametrize(("name", "truth"), [("top1", "labels"), ("ssim", "targets"), ("depth_accuracy", "targets")])
def test_a_network_that_guesses_is_told_where_its_truth_may_be_wrong(name: str, truth: str) -> None:
    figure = METRIC.model_copy(update={"name": name})
    low = figure.model_copy(update={"ci_low": 0.2})

    decision = decided(changed(metric=figure, reference=reference(chance=0.2, metric=low)))

    assert f"Look at {truth}, weights, preprocessing" in denial_text("fp32", decision)


def test_a_report_without_a_reference_is_denied() -> None:
    assert failed_checks(decided(changed(reference=None))) == ["better_than_guessing"]


@pytest.mark.parametrize(("name", "least"), [("top1", 100), ("map", 50), ("miou", 50)])
def test_too_few_test_images_deny_whatever_they_show(name: str, least: int) -> None:
    few, enough = (METRIC.model_copy(update={"name": name, "images": count}) for count in (least - 1, least))

    assert failed_checks(decided(changed(metric=few))) == ["test_images"]
    assert decided(changed(metric=enough)).accepted
    assert decided(changed(metric=few), GateThresholds(min_test_images=20)).accepted


def test_pictures_that_no_search_finds_are_compared_where_labels_do_not_matter() -> None:
    few = METRIC.model_copy(update={"name": "recall_at_1", "images": 4})
    report = changed(metric=few, reference=reference(different_images=30))

    assert "test_images" in failed_checks(decided(report))
    assert "test_images" not in failed_checks(decided(report, GateThresholds(mode="parity")))


def test_copies_do_not_count_as_test_images() -> None:
    metric = METRIC.model_copy(update={"images": 180})
    decision = decided(changed(metric=metric, reference=reference(different_images=3)))

    assert failed_checks(decision) == ["test_images"]
    assert "3 test images (177 of 180 are copies)" in denial_text("fp32", decision)
    assert decided(changed(metric=metric, reference=reference(different_images=100))).accepted


@pytest.mark.parametrize("images", [1, 6, 19, 20, 60])
@pytest.mark.parametrize("mode", ["metric", "parity"])
def test_what_is_told_to_write_for_few_test_images_is_accepted(images: int, mode: str) -> None:
    few = changed(metric=METRIC.model_copy(update={"images": images}))
    denied = decided(few, GateThresholds.model_validate({"mode": mode, "min_test_images": 100}))
    told = re.search(r"set `gate: (\{.*?\})`", denial_text("fp32", denied))
    assert told is not None

    written = GateThresholds.model_validate({"mode": mode, **yaml.safe_load(told[1])})

    assert decided(few, written).accepted
    assert written.allow_loose_thresholds == (images < 20)


def test_a_floor_of_hardly_any_test_images_is_loose() -> None:
    assert failed_checks(decided(thresholds=GateThresholds(min_test_images=5))) == ["thresholds"]


def test_answers_that_cannot_be_true_deny_with_their_sentence() -> None:
    of_the_file = decided(changed(faults=("Boxes are relative. Write `outputs: {units: relative}`",)))
    of_the_network = decided(changed(reference=reference(faults=("a softmax too many",))))

    assert failed_checks(of_the_file) == failed_checks(of_the_network) == ["plausible_answers"]
    assert "Write `outputs: {units: relative}`" in denial_text("fp32", of_the_file)
    assert decided(changed(faults=("x",)), GateThresholds(allow_random_weights=True)).accepted


def test_without_labels_a_version_passes_as_unjudged_and_its_metric_is_not_asked() -> None:
    useless = METRIC.model_copy(update={"value": 0.0, "ci_low": 0.0, "images": 10})

    decision = decided(changed(metric=useless, reference=None), GateThresholds(mode="parity"))

    assert decision.accepted
    few = useless.model_copy(update={"images": 9})
    assert failed_checks(decided(changed(metric=few, reference=None), GateThresholds(mode="parity"))) == ["test_images"]
    assert [check.name for check in decision.checks if check.name in ("unjudged", "metric_floor")] == ["unjudged"]
    assert not decided(changed(is_deterministic=False), GateThresholds(mode="parity")).accepted


def test_a_drop_that_no_selection_of_images_shows_is_not_held_against_a_variant() -> None:
    unseen = MetricDrop(value=0.0, ci_low=-0.02, ci_high=0.02, is_never_worse=True)
    seen = unseen.model_copy(update={"is_never_worse": False})

    assert decided(changed(drop=unseen)).accepted
    assert failed_checks(decided(changed(drop=seen))) == ["metric_drop"]


def test_a_detector_is_held_to_the_same_limit_at_its_score_threshold() -> None:
    point = OperatingPoint(score_threshold=0.25, metric=METRIC, precision=0.9, recall=0.8, f1=0.85)
    near, far = (MetricDrop(value=0.001, ci_low=0.0, ci_high=high) for high in (0.004, 0.012))

    assert decided(changed(operating_point=point, operating_drop=near)).accepted
    denied = decided(changed(operating_point=point, operating_drop=far))
    assert failed_checks(denied) == ["operating_drop"]
    assert "at score threshold 0.25 (precision 0.900, recall 0.800, F1 0.850)" in denial_text("fp32", denied)


def test_a_plan_of_a_detector_is_held_to_the_limit_at_its_score_threshold_too() -> None:
    point = OperatingPoint(score_threshold=0.25, metric=METRIC, precision=0.9, recall=0.8, f1=0.85)
    far = MetricDrop(value=0.001, ci_low=0.0, ci_high=0.012)
    plan = ON_DEVICE.model_copy(update={"operating_point": point, "operating_drop": far})

    assert failed_checks(decided(changed(SPARSE, device=plan))) == ["device_operating_drop"]


def test_the_agreement_that_lies_lowest_against_its_limit_is_shown() -> None:
    decision = decided(changed(agreement={"box_f1": 0.99, "box_iou": 0.86}))

    (line,) = (check for check in decision.checks if check.name == "agreement")
    assert (line.value, line.limit) == (0.86, 0.85)


# The answers of another program


def library(share: float) -> LibraryFigure:
    same = round(100 * share)
    return LibraryFigure(
        program="ultralytics", pictures=20, theirs=100, same=same, surplus=0, share=share, worst=("a.jpg",)
    )


@pytest.mark.parametrize("variant", [GOOD, INT8])
def test_every_variant_is_denied_where_the_float_network_answers_otherwise_than_its_library(
    variant: QualifyReport,
) -> None:
    asked = GateThresholds(library_agreement=LibraryAgreement(library="ultralytics", min_share=0.99))

    decision = decided(variant, asked, library=library(0.9))

    assert failed_checks(decision) == ["library_agreement"]
    assert "gives 90 of the 100 answers of ultralytics on 20 pictures, and 0 besides; worst: a.jpg" in denial_text(
        "fp32", decision
    )
    assert decided(variant, asked, library=library(0.99)).accepted
    assert failed_checks(decided(variant, asked)) == ["library_agreement"]  # asked for, and not measured
    assert decided(variant, library=library(0.1)).accepted  # not asked for


def test_half_of_a_librarys_answers_are_too_loose_a_limit() -> None:
    asked = GateThresholds(library_agreement=LibraryAgreement(answers="old.json", min_share=0.4))

    assert failed_checks(decided(thresholds=asked, library=library(0.9))) == ["thresholds"]
    assert any(
        text.startswith("library_agreement.min_share 0.4 (default 0.99)") for text in looser_limits(asked, "top1")
    )
    assert GateThresholds.model_validate_json(asked.model_dump_json()) == asked
