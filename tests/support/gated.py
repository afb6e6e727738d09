"""Reports before the gate, built by hand. Promises: a good one, and each change to it alone."""

from __future__ import annotations

from typing import Any

from saccade.export.gate.checks.facts import GateFacts
from saccade.export.gate.decision import gate_decision
from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.qualify_report import (
    BatchInvariance,
    ClassDropFigure,
    DeviceFigures,
    HostileFigure,
    MaskFigure,
    MetricDrop,
    ParityFigure,
    PrecisionFigure,
    QualifyReport,
    ReferenceFigure,
    SparseGain,
    SpeedRatio,
)
from saccade.models.contract.manifest import GateDecision, LatencyFigure, MeasuredDevice, MetricFigure

DIGEST = "a" * 64
METRIC = MetricFigure(name="top1", value=0.98, ci_low=0.97, ci_high=0.99, split="test", images=500)
CPU = MeasuredDevice(kind="cpu", name="test", threads=1)
GPU = MeasuredDevice(kind="cuda", name="Example 9", threads=1)
LATENCY = (LatencyFigure(batch_size=1, p50_ms=1.0, p90_ms=1.1, p99_ms=1.2, images_per_s=1000.0),)
GOOD = QualifyReport(
    variant="fp32",
    file_sha256=DIGEST,
    file_bytes=1000,
    metric=METRIC,
    drop=MetricDrop(value=0.001, ci_low=-0.001, ci_high=0.004),
    per_class=(0.98, 0.97),
    parity=(ParityFigure(batch_size=1, relative_l2=1e-6, class_agreement=1.0),),
    batch_invariance=BatchInvariance(relative_l2=1e-7, id_disagreement=0.0),
    hostile=(HostileFigure(name="all 0", is_finite=True, is_in_range=True),),
    is_deterministic=True,
    latency=LATENCY,
    speed=(
        SpeedRatio(batch_size=1, ratio=0.9, ci_low=0.8, ci_high=1.0, deploy_images_per_s=9.0, bare_images_per_s=10.0),
    ),
    measured_on=CPU,
    detail={},
    agreement={"top1": 0.99},
    worst_class=ClassDropFigure(class_id=1, value=0.01, ci_low=-0.01, ci_high=0.02),
    form_error=1e-6,
    precision=PrecisionFigure(asked="fp32", share=1.0, silent=()),
    memory_mb=100.0,
    reference=ReferenceFigure(metric=METRIC, chance=0.2, guess="always answering 'cat'"),
)
INT8 = GOOD.model_copy(
    update={"variant": "int8-cpu", "precision": PrecisionFigure(asked="int8", share=0.9, otherwise=("body.0 (fp32)",))}
)
SPARSE = GOOD.model_copy(
    update={
        "variant": "int8-trt-sparse24",
        "precision": PrecisionFigure(asked="int8", share=0.9, silent=(), parsed_by="tensorrt 11"),
        "mask": MaskFigure(claimed=("body.2",), violations=()),
        "latency": (),
        "speed": (),
        "memory_mb": None,
    }
)
ON_DEVICE = DeviceFigures(
    device=GPU,
    runtime="tensorrt 11",
    is_recorded=True,
    plan_bytes=1,
    precision_share=0.9,
    unaccounted=(),
    sparse_layers=3,
    sparse_gain=SparseGain(sibling="int8-trt", batch_size=8, ratio=1.2, ci_low=1.1, ci_high=1.3),
    latency=LATENCY,
    metric=METRIC,
    drop=MetricDrop(value=0.001, ci_low=-0.001, ci_high=0.004),
)
PENDING_ALWAYS = ["plan_precision", "sparse_tactic", "sparse_gain", "device_latency"]


def decided(
    report: QualifyReport = GOOD, thresholds: GateThresholds | None = None, digest: str = DIGEST, **facts: Any
) -> GateDecision:
    return gate_decision(report, thresholds or GateThresholds(), GateFacts(digest, **facts))


def changed(report: QualifyReport = GOOD, **changes: object) -> QualifyReport:
    return report.model_copy(update=changes)


def failed_checks(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if not (check.passed or check.pending)]


def pending_checks(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if check.pending]
