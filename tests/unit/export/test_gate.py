"""The gate. Promises: each check denies on its own, and nothing but report and thresholds decides."""

from __future__ import annotations

import pytest

from export.gate import denial_text, gate_decision
from export.gate_thresholds import GateThresholds
from export.qualify_report import (
    BatchInvariance,
    HostileFigure,
    MetricDrop,
    ParityFigure,
    QualifyReport,
    SpeedRatio,
)
from models.manifest import Device, GateDecision, LatencyFigure, MetricFigure

DIGEST = "a" * 64
GOOD = QualifyReport(
    variant="fp32",
    file_sha256=DIGEST,
    file_bytes=1000,
    metric=MetricFigure(name="top1", value=0.98, ci_low=0.97, ci_high=0.99, split="test", images=500),
    drop=MetricDrop(value=0.001, ci_low=-0.001, ci_high=0.004),
    per_class=(0.98, 0.97),
    parity=(ParityFigure(batch_size=1, relative_l2=1e-6, class_agreement=1.0),),
    batch_invariance=BatchInvariance(relative_l2=1e-7, id_disagreement=0.0),
    hostile=(HostileFigure(name="all 0", is_finite=True, is_in_range=True),),
    is_deterministic=True,
    latency=(LatencyFigure(batch_size=1, p50_ms=1.0, p90_ms=1.1, p99_ms=1.2, images_per_s=1000.0),),
    speed=(
        SpeedRatio(batch_size=1, ratio=0.9, ci_low=0.8, ci_high=1.0, deploy_images_per_s=9.0, bare_images_per_s=10.0),
    ),
    measured_on=Device(kind="cpu", name="test", threads=1),
    detail={},
)


def failed_checks(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_good_report_is_accepted() -> None:
    decision = gate_decision(GOOD, GateThresholds(), DIGEST)

    assert decision.accepted
    assert len({check.name for check in decision.checks}) == len(decision.checks)


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"file_sha256": "b" * 64}, "file_hash"),
        ({"parity": (ParityFigure(batch_size=3, relative_l2=1e-2, class_agreement=1.0),)}, "parity"),
        ({"parity": (ParityFigure(batch_size=3, relative_l2=None, class_agreement=1.0),)}, "parity"),
        ({"parity": (ParityFigure(batch_size=3, relative_l2=0.0, class_agreement=0.9),)}, "parity"),
        (
            {"metric": MetricFigure(name="top1", value=0.5, ci_low=0.4, ci_high=0.6, split="test", images=500)},
            "metric_floor",
        ),
        ({"drop": MetricDrop(value=0.001, ci_low=-0.001, ci_high=0.006)}, "metric_drop"),
        ({"batch_invariance": BatchInvariance(relative_l2=1e-3, id_disagreement=0.0)}, "batch_invariance"),
        ({"batch_invariance": BatchInvariance(relative_l2=None, id_disagreement=0.0)}, "batch_invariance"),
        ({"batch_invariance": BatchInvariance(relative_l2=0.0, id_disagreement=0.1)}, "batch_invariance"),
        ({"hostile": (HostileFigure(name="noise", is_finite=False, is_in_range=True),)}, "hostile_inputs"),
        ({"hostile": (HostileFigure(name="noise", is_finite=True, is_in_range=False),)}, "hostile_inputs"),
        ({"is_deterministic": False}, "determinism"),
    ],
)
def test_each_defect_alone_denies(changed: dict[str, object], check: str) -> None:
    decision = gate_decision(GOOD.model_copy(update=changed), GateThresholds(min_metric=0.9), DIGEST)

    assert not decision.accepted
    assert failed_checks(decision) == [check]
    assert check in denial_text("fp32", decision)


def test_int8_parity_informs_but_not_when_it_is_not_finite() -> None:
    far = (ParityFigure(batch_size=1, relative_l2=0.3, class_agreement=0.8),)
    broken = (ParityFigure(batch_size=1, relative_l2=None, class_agreement=0.8),)

    informed = gate_decision(GOOD.model_copy(update={"variant": "int8-cpu", "parity": far}), GateThresholds(), DIGEST)
    denied = gate_decision(GOOD.model_copy(update={"variant": "int8-cpu", "parity": broken}), GateThresholds(), DIGEST)

    assert informed.accepted
    assert failed_checks(denied) == ["parity"]


def test_slow_deploy_graph_denies_only_where_the_recipe_insists() -> None:
    relaxed = gate_decision(GOOD, GateThresholds(speed_ratio_gates=False), DIGEST)
    strict = gate_decision(GOOD, GateThresholds(speed_ratio_gates=True), DIGEST)

    assert relaxed.accepted
    assert failed_checks(strict) == ["speed_ratio"]


def test_metric_below_the_published_version_denies_where_the_recipe_asks() -> None:
    published = GOOD.metric.model_copy(update={"value": 0.99})

    silent = gate_decision(GOOD, GateThresholds(), DIGEST, published)
    asked = gate_decision(GOOD, GateThresholds(max_metric_regression=0.001), DIGEST, published)
    other_split = published.model_copy(update={"images": 7})

    assert silent.accepted
    assert failed_checks(asked) == ["metric_regression"]
    assert gate_decision(GOOD, GateThresholds(max_metric_regression=0.001), DIGEST, other_split).accepted
