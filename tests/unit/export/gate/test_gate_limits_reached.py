"""The gate at its limits. Promises: a figure exactly at its limit passes, and the worst of several figures decides."""

from __future__ import annotations

import pytest

from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.qualify_report import (
    BatchInvariance,
    ClassDropFigure,
    MetricDrop,
    ParityFigure,
    PrecisionFigure,
    QualifyReport,
    ReferenceFigure,
)
from saccade.models.contract.manifest import LatencyFigure
from tests.support.gated import (
    GOOD,
    INT8,
    LATENCY,
    METRIC,
    ON_DEVICE,
    PENDING_ALWAYS,
    SPARSE,
    changed,
    decided,
    failed_checks,
    pending_checks,
)
from tests.unit.export.gate.test_gate import published

HALF = {"variant": "fp16", "precision": PrecisionFigure(asked="fp16", share=0.99)}


def parity(error: float | None = 0.0, agreement: float = 1.0) -> ParityFigure:
    return ParityFigure(batch_size=1, relative_l2=error, class_agreement=agreement)


@pytest.mark.parametrize(
    ("changes", "thresholds"),
    [
        ({"parity": (parity(1e-4),)}, {}),
        ({"parity": (parity(0.0, 0.96875),)}, {"max_mask_disagreement": 0.03125}),
        ({"batch_invariance": BatchInvariance(relative_l2=1e-4, id_disagreement=1e-3)}, {}),
        ({"agreement": {"top1": 0.97}}, {}),
        ({}, {"min_metric": METRIC.ci_low}),
        ({"drop": MetricDrop(value=0.001, ci_low=0.0, ci_high=0.005)}, {}),
        ({"worst_class": ClassDropFigure(class_id=1, value=0.01, ci_low=0.0, ci_high=0.06)}, {}),
        ({}, {"min_speed_ratio": 0.9, "speed_ratio_gates": True}),
        (
            {
                "metric": METRIC.model_copy(update={"ci_low": 0.75}),
                "reference": ReferenceFigure(metric=METRIC, chance=0.5, guess="always answering 'cat'"),
            },
            {"min_skill": 0.5},
        ),
    ],
)
def test_figure_exactly_at_its_limit_is_accepted(changes: dict[str, object], thresholds: dict[str, object]) -> None:
    assert failed_checks(decided(changed(**changes), GateThresholds.model_validate(thresholds))) == []


def test_figures_of_half_precision_exactly_at_their_limits_are_not_denied() -> None:
    at_limits = changed(
        GOOD,
        **HALF,
        parity=(parity(2e-2, 0.96875),),
        batch_invariance=BatchInvariance(relative_l2=5e-3, id_disagreement=0.03125),
    )

    assert failed_checks(decided(at_limits, GateThresholds(max_half_mask_disagreement=0.03125))) == []


def test_conversion_exactly_at_its_limit_is_not_denied_and_a_dense_network_has_none() -> None:
    assert failed_checks(decided(changed(SPARSE, form_error=1e-4))) == []
    assert decided(changed(form_error=None)).accepted


def test_regressions_exactly_at_their_limits_are_accepted() -> None:
    slower = changed(latency=(LATENCY[0].model_copy(update={"p50_ms": 2.5}),))
    worse = changed(metric=METRIC.model_copy(update={"value": 0.75}))
    figures = (LATENCY[0].model_copy(update={"p50_ms": 2.0}),)
    before = published(metric=METRIC.model_copy(update={"value": 1.0}), latency=figures)

    assert decided(slower, GateThresholds(max_latency_regression=0.25), previous=before).accepted
    assert decided(worse, GateThresholds(max_metric_regression=0.25), previous=before).accepted


@pytest.mark.parametrize("report", [GOOD, changed(GOOD, **HALF)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("bad", [parity(0.09), parity(None), parity(0.0, 0.9)], ids=["far", "not finite", "ids"])
@pytest.mark.parametrize("is_first", [True, False])
def test_one_bad_batch_size_of_several_denies(report: QualifyReport, bad: ParityFigure, is_first: bool) -> None:
    figures = (bad, parity()) if is_first else (parity(), bad)

    assert failed_checks(decided(changed(report, parity=figures))) == ["parity"]


def test_int8_is_denied_by_one_error_that_is_not_finite_and_not_by_ids_that_differ() -> None:
    assert decided(changed(INT8, parity=(parity(0.3, 0.5), parity(0.1)))).accepted
    assert failed_checks(decided(changed(INT8, parity=(parity(0.3), parity(None))))) == ["parity"]


@pytest.mark.parametrize(
    ("invariance", "is_accepted"),
    [
        (BatchInvariance(relative_l2=0.066, usual_l2=0.0, id_disagreement=0.0), True),  # seen: 1 image of 10
        (BatchInvariance(relative_l2=0.4, usual_l2=0.0, id_disagreement=0.0), False),  # beyond what rounding cost
        (BatchInvariance(relative_l2=0.066, usual_l2=0.006, id_disagreement=0.0), False),
        (BatchInvariance(relative_l2=None, usual_l2=0.0, id_disagreement=0.0), False),
        (BatchInvariance(relative_l2=0.066, id_disagreement=0.0), False),
    ],
)
def test_int8_that_is_emulated_may_round_one_image_the_other_way(
    invariance: BatchInvariance, is_accepted: bool
) -> None:
    emulated = changed(INT8, variant="int8-trt", parity=(parity(0.3),), batch_invariance=invariance)
    assert ("batch_invariance" in failed_checks(decided(emulated))) != is_accepted

    served_here = changed(INT8, parity=(parity(0.3),), batch_invariance=invariance)
    assert failed_checks(decided(served_here)) == ["batch_invariance"]


def test_slowest_batch_size_decides_the_ratio_and_the_fastest_the_throughput() -> None:
    slow = GOOD.speed[0].model_copy(update={"batch_size": 8, "ratio": 0.5})
    gates = GateThresholds(min_speed_ratio=0.8, speed_ratio_gates=True)
    large = LatencyFigure(batch_size=8, p50_ms=4.0, p90_ms=4.0, p99_ms=4.0, images_per_s=2000.0)

    assert failed_checks(decided(changed(speed=(*GOOD.speed, slow)), gates)) == ["speed_ratio"]
    for latency in ((large, *LATENCY), (*LATENCY, large)):
        report = changed(latency=latency)
        assert decided(report, GateThresholds(min_images_per_s=2000.0)).accepted
        assert decided(report, GateThresholds(max_p99_ms_batch_1=1.2)).accepted


def test_objectives_count_on_the_device_and_not_on_the_cpu() -> None:
    # given a variant for GPUs, whose file took 100 MB on the CPU and whose plan takes 300 MB of the device
    report = changed(SPARSE, memory_mb=100.0, device=ON_DEVICE.model_copy(update={"memory_mb": 300.0}))

    assert decided(report, GateThresholds(max_memory_mb=300.0)).accepted
    assert failed_checks(decided(report, GateThresholds(max_memory_mb=299.0))) == ["memory"]
    assert decided(report, GateThresholds(max_p99_ms_batch_1=1.2, min_images_per_s=1000.0)).accepted
    strict = GateThresholds(max_p99_ms_batch_1=1.1, min_images_per_s=1001.0)
    assert failed_checks(decided(report, strict)) == ["latency", "throughput"]


def test_memory_of_the_process_counts_where_the_device_has_no_figure() -> None:
    report = changed(SPARSE, memory_mb=100.0, device=ON_DEVICE)

    assert decided(report, GateThresholds(max_memory_mb=100.0)).accepted
    assert failed_checks(decided(report, GateThresholds(max_memory_mb=99.0))) == ["memory"]


def test_versions_that_were_not_both_timed_at_batch_one_are_not_compared() -> None:
    strict, untimed = GateThresholds(max_latency_regression=0.0), published(latency=())

    for report, previous in ((GOOD, untimed), (changed(latency=()), published()), (changed(latency=()), untimed)):
        decision = decided(report, strict, previous=previous)
        assert decision.accepted
        assert "latency_regression" not in {check.name for check in decision.checks}


def test_lines_about_speed_show_the_best_batch_size_and_what_was_not_measured() -> None:
    large = LATENCY[0].model_copy(update={"batch_size": 8, "images_per_s": 2000.0})
    on_device = decided(changed(SPARSE, device=ON_DEVICE.model_copy(update={"latency": (*LATENCY, large)})))
    shown = {check.name: check.value for check in on_device.checks}
    (ratio,) = (check for check in decided(changed(speed=())).checks if check.name == "speed_ratio")

    assert shown["device_latency"] == 2000.0
    assert (ratio.value, ratio.detail) == (None, "not measured; informs")


def test_times_of_a_file_on_the_cpu_do_not_stand_for_its_plan() -> None:
    report = changed(SPARSE, latency=LATENCY)

    assert pending_checks(decided(report, GateThresholds(max_p99_ms_batch_1=9.0))) == [*PENDING_ALWAYS, "latency"]


def test_objective_without_a_figure_denies_a_variant_for_cpus() -> None:
    without = changed(latency=(), memory_mb=None)
    objectives = GateThresholds(max_p99_ms_batch_1=9.0, min_images_per_s=1.0, max_memory_mb=999.0)

    assert failed_checks(decided(without, objectives)) == ["latency", "throughput", "memory"]


def test_lines_say_what_decides_instead_of_parity_and_that_no_hostile_input_may_fail() -> None:
    details = {}
    for report in (INT8, SPARSE):
        (line,) = (check for check in decided(report).checks if check.name == "parity")
        details[report.variant] = line.detail
    (hostile,) = (check for check in decided().checks if check.name == "hostile_inputs")

    assert details["int8-cpu"].endswith("decide for int8")
    assert details["int8-trt-sparse24"].endswith(" weights")
    assert (hostile.value, hostile.limit) == (0, 0)
