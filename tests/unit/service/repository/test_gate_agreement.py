"""Gates against thresholds. Promises: what the exporter decides agrees, and each forged check is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from saccade.export.gate.limits import CorruptionLimits, GateThresholds, LibraryAgreement
from saccade.export.qualification.qualify_report import (
    CorruptionFigure,
    CorruptionReport,
    MetricDrop,
    QualifyReport,
    SliceFigure,
)
from saccade.export.variants import TRAITS, VariantKind
from saccade.models.contract.manifest import GateDecision, Variant
from saccade.service.repository.gate_agreement import gate_faults
from tests.support.gated import GOOD, ON_DEVICE, SPARSE, changed, decided

_ASKING = GateThresholds(
    min_metric=0.9,
    min_skill=0.1,
    min_test_images=200,
    max_metric_drop_by_variant={"fp32": 0.2},
    min_precision_share={"fp32": 0.5},
    speed_ratio_gates=True,
    max_p99_ms_batch_1=9.0,
    min_images_per_s=1.0,
    max_memory_mb=500.0,
    library_agreement=LibraryAgreement(library="timm"),
)


def document(model: QualifyReport | GateThresholds) -> Any:
    return orjson.loads(model.model_dump_json())


def gated(report: QualifyReport, thresholds: GateThresholds) -> Variant:
    """The variant as it is published and read again."""
    traits = next(traits for name, traits in TRAITS.items() if name == report.variant)
    whole = {
        "name": report.variant,
        "precision": traits.precision,
        "sparsity": "two_four" if traits.form == "sparse24" else "dense",
        "target": traits.target,
        "file": f"{report.variant}.onnx",
        "metric": report.metric.model_dump(),
        "latency": [],
        "measured_on": report.measured_on.model_dump(),
        "detail": {},
        "gate": decided(report, thresholds, is_trained=False).model_dump(),
    }
    return Variant.model_validate_json(orjson.dumps(whole))


def forged(variant: Variant, name: str, **changes: object) -> Variant:
    """One check with other fields; without any, the gate has it no more."""
    kept = (check if check.name != name else check.model_copy(update=changes) for check in variant.gate.checks)
    checks = tuple(check for check in kept if changes or check.name != name)
    return variant.model_copy(update={"gate": GateDecision.model_construct(accepted=True, checks=checks)})


@pytest.mark.parametrize("thresholds", [GateThresholds(), _ASKING, GateThresholds(mode="parity")])
@pytest.mark.parametrize("name", TRAITS)
@pytest.mark.parametrize("device", [None, ON_DEVICE])
def test_gates_of_the_exporter_agree_with_their_thresholds(
    name: VariantKind, thresholds: GateThresholds, device: object
) -> None:
    report = changed(SPARSE if TRAITS[name].needs_gpu else GOOD, variant=name, device=device)

    assert list(gate_faults(gated(report, thresholds), document(report), document(thresholds))) == []


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("metric_floor", {"limit": 0.1}, "check metric_floor has the limit 0.1, the thresholds say 0.9"),
        ("metric_floor", {"value": 0.99}, "check metric_floor says 0.99, the figures give 0.97"),
        ("better_than_guessing", {"value": 0.5}, "check better_than_guessing says 0.5, the figures give 0.9625"),
        (
            "better_than_guessing",
            {"limit": 0.0},
            "check better_than_guessing has the limit 0.0, the thresholds say 0.1",
        ),
        ("test_images", {"value": 900.0}, "check test_images says 900.0, the figures give 500"),
        ("metric_drop", {"limit": 0.5}, "check metric_drop has the limit 0.5, the thresholds say 0.2"),
        ("effective_precision", {"limit": 0.0}, "check effective_precision has the limit 0.0, the thresholds say 0.5"),
        ("speed_ratio", {"limit": None}, "check speed_ratio has the limit None, the thresholds say 0.97"),
        ("latency", {}, "the gate has no check latency, which mode metric asks for"),
        ("class_drop", {}, "the gate has no check class_drop, which mode metric asks for"),
        ("library_agreement", {}, "the gate has no check library_agreement, which mode metric asks for"),
    ],
)
def test_forged_check_is_named(name: str, changes: dict[str, object], words: str) -> None:
    variant = forged(gated(GOOD, _ASKING), name, **changes)

    assert list(gate_faults(variant, document(GOOD), document(_ASKING))) == [words]


def test_slices_that_were_measured_must_be_judged() -> None:
    drop = MetricDrop(value=0.0, ci_low=-0.01, ci_high=0.01)
    figure = SliceFigure(name="camera=a", images=500, value=0.9, ci_low=0.85, ci_high=0.95, reference=0.9, drop=drop)
    report, thresholds = changed(slices=(figure,)), GateThresholds(min_slice_metric=0.8)
    variant = gated(report, thresholds)
    looser = forged(variant, "slice_drop", limit=0.5)

    assert list(gate_faults(variant, document(report), document(thresholds))) == []
    assert list(gate_faults(looser, document(report), document(thresholds))) == [
        "check slice_drop has the limit 0.5, the thresholds say 0.06"
    ]
    assert list(gate_faults(forged(variant, "slice_floor"), document(report), document(thresholds))) == [
        "the gate has no check slice_floor, which mode metric asks for"
    ]


def test_corruptions_that_the_recipe_asks_for_must_be_judged() -> None:
    drop = MetricDrop(value=0.0, ci_low=-0.01, ci_high=0.01)
    fog = CorruptionFigure(kind="fog", by_strength=(0.5,), eager_by_strength=(0.5,), clean_drop=0.4, eager_drop=drop)
    found = CorruptionReport(
        images=200, strengths=(1,), clean=0.9, eager_clean=0.9, clean_drop=drop, eager_drop=drop, kinds=(fog,)
    )
    report, thresholds = changed(corruptions=found), GateThresholds(corruptions=CorruptionLimits())
    variant = gated(report, thresholds)

    assert list(gate_faults(variant, document(report), document(thresholds))) == []
    assert list(
        gate_faults(forged(variant, "corruption_worst", limit=0.9), document(report), document(thresholds))
    ) == ["check corruption_worst has the limit 0.9, the thresholds say 0.1"]
    assert list(gate_faults(forged(variant, "corruption_drop"), document(report), document(thresholds))) == [
        "the gate has no check corruption_drop, which mode metric asks for"
    ]


def test_threshold_that_an_older_report_lacks_asks_for_nothing() -> None:
    older = {name: limit for name, limit in document(_ASKING).items() if name not in ("min_skill", "min_test_images")}
    variant = forged(forged(gated(GOOD, _ASKING), "better_than_guessing"), "test_images")

    assert list(gate_faults(variant, document(GOOD), older)) == []
