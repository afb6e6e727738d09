"""Export reports built by hand, which hold every kind of verdict and every optional part at least once."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.export.data.fidelity import FidelityReport
from saccade.export.gate.limits import GateThresholds
from saccade.export.precision.efficiency import Efficiency
from saccade.export.qualification.curves import Curves, confusion_of
from saccade.export.qualification.disagreements import Disagreements, Example
from saccade.export.qualification.qualify_report import (
    BatchInvariance,
    HostileFigure,
    LayerFigure,
    MetricDrop,
    QualifyReport,
    SpeedRatio,
)
from saccade.export.reports.compression_report import (
    OneShotFigure,
    PrunedLayer,
    PruningReport,
    QuantizedLayer,
    Recovery,
    RecoveryFigure,
    SparseLayer,
    SparsityReport,
)
from saccade.export.reports.export_report import (
    CalibrationTable,
    CalibratorFigure,
    ConversionFigure,
    ExportReport,
    FoldFigure,
    StepFigure,
    VariantReport,
)
from saccade.models.contract.manifest import (
    GateCheck,
    GateDecision,
    LatencyFigure,
    MeasuredDevice,
    MetricFigure,
    TargetSupport,
)
from saccade.models.contract.specs import Task

LABELS = ("cat", "dog", "<b>bird</b>")
CPU = MeasuredDevice(kind="cpu", name="test processor", threads=2)


def check(name: str, state: str = "pass", detail: str = "as it should be") -> GateCheck:
    return GateCheck(name=name, passed=state == "pass", pending=state == "pending", value=0.5, limit=0.5, detail=detail)


def decision(*checks: GateCheck) -> GateDecision:
    return GateDecision(accepted=all(each.passed for each in checks), checks=checks)


def metric(value: float) -> MetricFigure:
    return MetricFigure(name="top1", value=value, ci_low=value - 0.01, ci_high=value + 0.01, split="test", images=30)


def latency(ms: float) -> tuple[LatencyFigure, ...]:
    return tuple(
        LatencyFigure(
            batch_size=size, p50_ms=ms * size, p90_ms=ms * size, p99_ms=2 * ms * size, images_per_s=900 / ms + size
        )
        for size in (1, 4)
    )


def qualified(variant: str, value: float = 0.9, ms: float = 1.0, **changes: Any) -> QualifyReport:
    whole: dict[str, Any] = {
        "variant": variant,
        "file_sha256": format(len(variant), "x")[-1] * 64,
        "file_bytes": 3 << 20,
        "metric": metric(value),
        "drop": MetricDrop(value=0.9 - value, ci_low=0.0, ci_high=0.004),
        "per_class": (0.9, 0.8, None),
        "parity": (),
        "batch_invariance": BatchInvariance(relative_l2=0.0, id_disagreement=0.0),
        "hostile": (HostileFigure(name="noise", is_finite=True, is_in_range=True),),
        "is_deterministic": True,
        "latency": latency(ms),
        "speed": (
            SpeedRatio(
                batch_size=1, ratio=1.01, ci_low=1.0, ci_high=1.02, deploy_images_per_s=101, bare_images_per_s=100
            ),
        ),
        "measured_on": CPU,
        "detail": {"precision": variant},
        "layers": (layer("stem", "fp32"), layer("block", "int8")),
        "curves": Curves(confusion=confusion_of(np.array([[9, 1, 0], [2, 8, 0], [0, 0, 0]]), "images")),
        "efficiency": Efficiency(
            gflops_per_image=0.004,
            activations_m=0.008192,
            weights_m=0.000864,
            share_of_flops={"fp32": 0.5, "int8": 0.5},
            batch_size=4,
            flops_per_byte=61.5,
            achieved_gflops_per_s=3.6,
            share_of_peak=0.0425,
        ),
        "disagreements": Disagreements(images=30, differing=0, measure="how much"),
    }
    return QualifyReport(**(whole | changes))


def layer(name: str, precision: str) -> LayerFigure:
    return LayerFigure.model_validate(
        {
            "node": f"{name}/Conv_0",
            "op": "Conv",
            "layer": name,
            "precision": precision,
            "flops": 2_000_000,
            "activations": 4096,
            "weights": 432,
            "weight_bytes": 432,
        }
    )


def sparsity() -> SparsityReport:
    return SparsityReport(
        method="second_order",
        dense_tuning_metric=0.9,
        tuning_metric=0.88,
        permutation_error=3e-7,
        claimed=("block",),
        layers=(
            SparseLayer(layer="stem", eligible=False, reason="first layer"),
            SparseLayer(
                layer="block",
                eligible=True,
                kept_magnitude_identity=0.71,
                kept_magnitude_permuted=0.78,
            ),
        ),
        one_shot=(
            OneShotFigure(method="random", permuted=False, tuning_metric=0.31),
            OneShotFigure(method="magnitude", permuted=True, tuning_metric=0.52),
            OneShotFigure(method="second_order", permuted=True, tuning_metric=0.63),
        ),
        recovery=Recovery(
            history=(
                RecoveryFigure(step=0, tuning_metric=0.63, flip_rate=0.02),
                RecoveryFigure(step=200, tuning_metric=0.88, flip_rate=0.001),
            )
        ),
    )


def pruning() -> PruningReport:
    return PruningReport(
        dense_multiply_adds=2000,
        multiply_adds=1700,
        dense_parameters=1000,
        parameters=800,
        dense_tuning_metric=0.9,
        one_shot_tuning_metric=0.61,
        tuning_metric=0.89,
        layers=(
            PrunedLayer(layer="stem", dense=(16, 3), pruned=(16, 3)),
            PrunedLayer(layer="block", dense=(16, 16), pruned=(12, 16)),
        ),
        recovery=Recovery(
            images=500,
            history=tuple(
                RecoveryFigure(step=step, tuning_metric=value) for step, value in ((0, 0.61), (200, 0.89), (300, 0.88))
            ),
        ),
    )


def whole_report(**changes: Any) -> ExportReport:
    """Accepted, denied and pending variants of a classifier."""
    example = Example(
        file="example-1.jpg", image=7, amount=0.8, truth="cat", reference="cat 0.90", variant="<b>bird</b> 0.70"
    )
    differing = Disagreements(images=30, differing=2, measure="how much", examples=(example,))
    variants = (
        VariantReport(qualify=qualified("fp32"), gate=decision(check("file_hash"), check("parity"))),
        VariantReport(
            qualify=qualified("int8-cpu", 0.8, 0.5, disagreements=differing),
            gate=decision(check("file_hash"), check("metric_drop", "fail", "lost 0.1 | too much")),
        ),
        VariantReport(
            qualify=qualified("int8-trt-sparse24", 0.89, latency=()),
            gate=decision(check("file_hash"), check("sparse_gain", "pending", "needs a plan on its device")),
        ),
    )
    candidates = (
        CalibratorFigure(calibrator="minmax", tuning_metric=0.9),
        CalibratorFigure(calibrator="entropy", tuning_metric=0.7),
    )
    whole: dict[str, Any] = {
        "model": "animals",
        "task": Task.CLASSIFY,
        "labels": LABELS,
        "source": "timm:resnet18",
        "weights": f"sha256:{'e' * 64}",
        "created": "2026-01-02T03:04:05+00:00",
        "reference": metric(0.9),
        "network": {"parameters": 1234},
        "variants": variants,
        "calibration": (CalibrationTable(variant="int8-cpu", tuning_images=20, candidates=candidates),),
        "thresholds": GateThresholds(),
        "fidelity": FidelityReport(
            transform="a library's",
            images=28,
            share_within_one_level=0.9999,
            worst_image_share=0.99,
            worst_image="31x47",
            max_difference=1.5,
        ),
        "conversion": (ConversionFigure(output="network_0", batch_size=3, relative_l2=2e-6),),
        "folds": (FoldFigure(name="batch_norm", layers=12, relative_error=3e-7),),
        "targets": (TargetSupport(target="tensorrt", supported=True, reason="", fallback=None),),
        "steps": (StepFigure(step="wrap", digest="d" * 64, seconds=1.5),),
        "environment": {"cpu": "test processor", "python": "3.12"},
        "command": "saccade-export run recipes/animals.yaml --repository repository --work .saccade/export",
        "splits": {"calibration": "1" * 64, "test": "2" * 64, "tuning": "3" * 64},
        "forms": {"sparse24": {"method": "second_order"}},
        "sparsity": sparsity(),
        "quantized_layers": {
            "int8-cpu": (
                QuantizedLayer(layer="stem", node="stem/Conv_0", op="Conv", quantized=False, reason="first layer"),
                QuantizedLayer(layer="block", node="block/Conv_0", op="Conv", sensitivity=31.25, quantized=True),
            )
        },
    }
    return ExportReport(**(whole | changes))
