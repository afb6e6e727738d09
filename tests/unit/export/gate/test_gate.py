"""The gate. Promises: each check denies on its own, and nothing but report, thresholds and facts decides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import saccade.export.gate.checks
from saccade.export.errors import RecipeError
from saccade.export.gate.checks.names import GATE_BY_CHECK
from saccade.export.gate.decision import denial_text, verdict
from saccade.export.gate.limits import GateThresholds, looser_limits
from saccade.export.qualification.qualify_report import (
    BatchInvariance,
    ClassDropFigure,
    HostileFigure,
    MaskFigure,
    MetricDrop,
    ParityFigure,
    PrecisionFigure,
    SparseGain,
)
from saccade.models.contract.gate_bounds import bound_of
from saccade.models.contract.manifest import MetricFigure, Variant
from saccade.models.contract.paired_speed import PairedSpeed
from tests.support.gated import (
    CPU,
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


def test_good_report_is_accepted() -> None:
    decision = decided()

    assert decision.accepted
    assert len({check.name for check in decision.checks}) == len(decision.checks)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"file_sha256": "b" * 64}, "file_hash"),
        ({"parity": (ParityFigure(batch_size=3, relative_l2=1e-2, class_agreement=1.0),)}, "parity"),
        ({"parity": (ParityFigure(batch_size=3, relative_l2=None, class_agreement=1.0),)}, "parity"),
        ({"parity": (ParityFigure(batch_size=3, relative_l2=0.0, class_agreement=0.9),)}, "parity"),
        ({"parity": ()}, "parity"),
        (
            {"metric": MetricFigure(name="top1", value=0.5, ci_low=0.4, ci_high=0.6, split="test", images=500)},
            "metric_floor",
        ),
        ({"drop": MetricDrop(value=0.001, ci_low=-0.001, ci_high=0.006)}, "metric_drop"),
        ({"worst_class": ClassDropFigure(class_id=1, value=0.01, ci_low=0.0, ci_high=0.07)}, "class_drop"),
        ({"worst_class": None}, "class_drop"),
        ({"agreement": {"top1": 0.9}}, "agreement"),
        ({"agreement": {"mask_iou": 0.9, "pixels": 0.99, "boundary_iou": 0.5}}, "agreement"),
        ({"agreement": None}, "agreement"),
        ({"batch_invariance": BatchInvariance(relative_l2=1e-3, id_disagreement=0.0)}, "batch_invariance"),
        ({"batch_invariance": BatchInvariance(relative_l2=None, id_disagreement=0.0)}, "batch_invariance"),
        ({"batch_invariance": BatchInvariance(relative_l2=0.0, id_disagreement=0.1)}, "batch_invariance"),
        ({"hostile": (HostileFigure(name="noise", is_finite=False, is_in_range=True),)}, "hostile_inputs"),
        ({"hostile": (HostileFigure(name="noise", is_finite=True, is_in_range=False),)}, "hostile_inputs"),
        ({"is_deterministic": False}, "determinism"),
        ({"precision": None}, "effective_precision"),
        ({"precision": PrecisionFigure(asked="fp32", share=0.5)}, "effective_precision"),
        ({"precision": PrecisionFigure(asked="fp32", share=1.0, silent=("body.0 (fp16)",))}, "silent_layers"),
    ],
)
def test_each_defect_alone_denies(changes: dict[str, object], check: str) -> None:
    decision = decided(changed(**changes), GateThresholds(min_metric=0.9))

    assert not decision.accepted
    assert not decision.is_pending
    assert failed_checks(decision) == [check]
    assert check in denial_text("fp32", decision)
    assert verdict(decision) == "denied"


# G0


def test_weights_beside_the_graph_are_hashed_too() -> None:
    report = changed(external_sha256={"fp32.onnx.data": "c" * 64})

    assert decided(report, external_sha256={"fp32.onnx.data": "c" * 64}).accepted
    assert failed_checks(decided(report, external_sha256={"fp32.onnx.data": "d" * 64})) == ["weights_hash"]
    assert failed_checks(decided(report, external_sha256={})) == ["weights_hash"]


def test_report_that_is_not_the_published_one_is_denied() -> None:
    assert decided(report_sha256=("a", "a")).accepted
    assert failed_checks(decided(report_sha256=("a", "b"))) == ["report_hash"]


@pytest.mark.parametrize(("label", "named"), [("owl", "class 'owl'"), ("", "class 1")])
def test_the_class_that_lost_most_is_named_by_its_label(label: str, named: str) -> None:
    worst = ClassDropFigure(class_id=1, label=label, value=0.2, ci_low=0.1, ci_high=0.3)

    assert f"{named} may have lost most: 0.2000 below eager; it may be 0.1000 below eager to 0.3000" in denial_text(
        "fp32", decided(changed(worst_class=worst))
    )


def test_limits_beyond_what_says_something_deny_unless_the_recipe_insists() -> None:
    loose = GateThresholds(max_parity_error=0.5, min_precision_share={"int8": 0.1})

    denied = decided(thresholds=loose)
    insisted = decided(thresholds=loose.model_copy(update={"allow_loose_thresholds": True}))

    assert failed_checks(denied) == ["thresholds"]
    assert "max_parity_error 0.5 (at most 0.01)" in denial_text("fp32", denied)
    assert insisted.accepted
    (shown,) = (check for check in insisted.checks if check.name == "thresholds")
    assert shown.value == "2 LOOSE"
    assert "LOOSE" in shown.detail
    assert "min_precision_share.int8 0.1" in shown.detail


def test_limits_that_are_looser_than_the_defaults_are_named_with_both_numbers() -> None:
    thresholds = GateThresholds(
        max_metric_drop=0.01,
        max_metric_drop_by_variant={"int8-cpu": 0.003, "int8-trt-sparse24": 0.008},
        min_agreement={"top1": 0.9},
        min_metric=0.5,
        min_test_images=20,
    )

    assert looser_limits(GateThresholds(), "top1") == []
    assert looser_limits(thresholds, "top1") == [
        "max_metric_drop 0.01 (default 0.005)",
        "max_metric_drop_by_variant.int8-trt-sparse24 0.008 (default 0.005)",
        "min_agreement.top1 0.9 (default 0.97)",
        "min_test_images 20 (default 100)",
    ]


def test_a_budget_of_one_variant_has_a_ceiling_too() -> None:
    thresholds = GateThresholds(max_metric_drop_by_variant={"fp32": 0.5})

    assert failed_checks(decided(thresholds=thresholds)) == ["thresholds"]


def test_limits_that_are_not_the_recipes_deny() -> None:
    decision = decided(thresholds=GateThresholds(max_metric_drop=0.02), agreed=GateThresholds())

    assert failed_checks(decision) == ["thresholds"]
    assert "max_metric_drop 0.02 instead of 0.005" in denial_text("fp32", decision)
    assert decided(agreed=GateThresholds()).accepted


# G1


def test_int8_parity_informs_but_not_when_it_is_not_finite() -> None:
    far = (ParityFigure(batch_size=1, relative_l2=0.3, class_agreement=0.8),)
    broken = (ParityFigure(batch_size=1, relative_l2=None, class_agreement=0.8),)

    assert decided(changed(INT8, parity=far)).accepted
    assert failed_checks(decided(changed(INT8, parity=broken))) == ["parity"]


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_half_precision_has_a_parity_limit_of_its_own(variant: str) -> None:
    precision = PrecisionFigure(asked=variant, share=0.99)
    near, far = ((ParityFigure(batch_size=1, relative_l2=error, class_agreement=0.995),) for error in (1e-2, 3e-2))

    assert decided(changed(variant=variant, precision=precision, parity=near)).is_pending
    assert failed_checks(decided(changed(variant=variant, precision=precision, parity=far))) == ["parity"]


def test_other_weights_are_held_to_their_own_module_and_not_to_the_dense_network() -> None:
    far = (ParityFigure(batch_size=1, relative_l2=0.3, class_agreement=0.8),)

    assert decided(changed(SPARSE, parity=far)).is_pending
    assert failed_checks(decided(changed(SPARSE, form_error=1e-2))) == ["conversion"]
    assert failed_checks(decided(changed(SPARSE, form_error=None))) == ["conversion"]


# G2, G3


@pytest.mark.parametrize(
    "mask",
    [
        None,
        MaskFigure(claimed=(), violations=()),
        MaskFigure(claimed=("body.2",), violations=("body.2/conv: 1 group",)),
    ],
)
def test_sparse_variant_must_claim_layers_that_are_sparse(mask: MaskFigure | None) -> None:
    assert failed_checks(decided(changed(SPARSE, mask=mask))) == ["mask"]


@pytest.mark.parametrize(
    "precision",
    [
        PrecisionFigure(asked="int8", share=0.7),
        PrecisionFigure(asked="int8", share=None, problem="the size of 'x' is unknown"),
        PrecisionFigure(asked="int8", share=0.9, parsed_by="tensorrt 11", mismatches=("body.0 (fp16, fp32)",)),
        PrecisionFigure(asked="int8", share=0.9, parsed_by="tensorrt 11", refusal="no such operator"),
    ],
)
def test_file_that_computes_otherwise_is_denied(precision: PrecisionFigure) -> None:
    assert failed_checks(decided(changed(SPARSE, precision=precision))) == ["effective_precision"]


def test_float_network_that_cannot_be_counted_claims_nothing_to_disprove() -> None:
    assert decided(changed(precision=PrecisionFigure(asked="fp32", share=None, problem="unknown sizes"))).accepted


def test_refusal_by_tensorrt_does_not_matter_where_another_runtime_takes_the_file() -> None:
    precision = PrecisionFigure(asked="fp16", share=1.0, parsed_by="tensorrt 11", refusal="no such operator")

    assert decided(changed(variant="fp16", precision=precision)).is_pending


# Pending


def test_what_needs_a_device_is_pending_and_not_passed() -> None:
    decision = decided(SPARSE)

    assert decision.is_pending
    assert not decision.accepted
    assert pending_checks(decision) == PENDING_ALWAYS
    assert verdict(decision) == "pending"
    assert denial_text("int8-trt-sparse24", decision) == f"int8-trt-sparse24 pending: {', '.join(PENDING_ALWAYS)}"


def test_a_failed_check_denies_whatever_is_pending() -> None:
    decision = decided(changed(SPARSE, is_deterministic=False))

    assert not decision.is_pending
    assert verdict(decision) == "denied"


def test_variants_for_cpus_wait_for_no_device() -> None:
    assert pending_checks(decided(INT8, GateThresholds(max_p99_ms_batch_1=9.0, max_memory_mb=999.0))) == []


def test_measured_device_settles_every_pending_check() -> None:
    decision = decided(changed(SPARSE, device=ON_DEVICE))

    assert decision.accepted


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"precision_share": 0.4, "unaccounted": ("body.2/conv",)}, "plan_precision"),
        ({"sparse_layers": 0}, "sparse_tactic"),
        ({"sparse_gain": ON_DEVICE.sparse_gain.model_copy(update={"ci_low": 1.01})}, "sparse_gain"),  # type: ignore[union-attr]  # it is set above
        ({"sparse_gain": None}, "sparse_gain"),
        ({"latency": ()}, "device_latency"),
        ({"drop": MetricDrop(value=0.1, ci_low=0.05, ci_high=0.2)}, "device_metric"),
    ],
)
def test_each_figure_of_a_device_alone_denies(changes: dict[str, object], check: str) -> None:
    decision = decided(changed(SPARSE, device=ON_DEVICE.model_copy(update=changes)))

    assert failed_checks(decision) == [check]
    assert not decision.is_pending


def test_sparsity_that_is_not_worth_it_says_that_dense_ships() -> None:
    gain = SparseGain(sibling="int8-trt", batch_size=8, ratio=1.0, ci_low=0.98, ci_high=1.02)
    decision = decided(changed(SPARSE, device=ON_DEVICE.model_copy(update={"sparse_gain": gain})))

    assert "not worth it, dense ships" in denial_text("int8-trt-sparse24", decision)


# G6, G10


def test_a_variant_may_have_a_budget_of_its_own() -> None:
    report = changed(SPARSE, drop=MetricDrop(value=0.004, ci_low=0.0, ci_high=0.007))

    assert failed_checks(decided(report)) == ["metric_drop"]
    assert decided(report, GateThresholds(max_metric_drop_by_variant={"int8-trt-sparse24": 0.008})).is_pending


def test_slow_deploy_graph_denies_only_where_the_recipe_insists() -> None:
    assert decided(thresholds=GateThresholds(speed_ratio_gates=False)).accepted
    assert failed_checks(decided(thresholds=GateThresholds(speed_ratio_gates=True))) == ["speed_ratio"]


@pytest.mark.parametrize(
    ("limit", "reached", "missed", "check"),
    [
        ("max_p99_ms_batch_1", 1.2, 1.1, "latency"),
        ("min_images_per_s", 1000.0, 1001.0, "throughput"),
        ("max_memory_mb", 100.0, 99.0, "memory"),
    ],
)
def test_objectives_of_the_recipe_hold(limit: str, reached: float, missed: float, check: str) -> None:
    assert decided(thresholds=GateThresholds(**{limit: reached})).accepted
    assert failed_checks(decided(thresholds=GateThresholds(**{limit: missed}))) == [check]
    assert check in pending_checks(decided(SPARSE, GateThresholds(**{limit: reached})))


def published(**changes: object) -> Variant:
    return Variant(
        name="fp32",
        precision="fp32",
        sparsity="dense",
        target="any",
        file="fp32.onnx",
        metric=METRIC.model_copy(update={"value": 0.99}),
        latency=LATENCY,
        measured_on=CPU,
        detail={},
        gate=decided(),
    ).model_copy(update=changes)


def test_metric_below_the_published_version_denies_where_the_recipe_asks() -> None:
    strict = GateThresholds(max_metric_regression=0.001)
    other_split = published(metric=METRIC.model_copy(update={"value": 0.99, "images": 7}))

    assert decided(previous=published()).accepted
    assert failed_checks(decided(thresholds=strict, previous=published())) == ["metric_regression"]
    assert decided(thresholds=strict, previous=other_split).accepted


def test_slower_than_the_published_version_denies_where_the_recipe_asks() -> None:
    strict = GateThresholds(max_latency_regression=0.1)
    slower = changed(latency=(LATENCY[0].model_copy(update={"p50_ms": 1.2}),))
    elsewhere = published(measured_on=CPU.model_copy(update={"name": "another"}))

    assert decided(thresholds=strict, previous=published()).accepted
    assert failed_checks(decided(slower, strict, previous=published())) == ["latency_regression"]
    assert decided(slower, strict, previous=elsewhere).accepted


def test_speed_in_turns_informs_and_what_could_not_be_timed_is_denied() -> None:
    pair = PairedSpeed(
        against="fp32", device_kind="cpu", ratio=0.4, ci_low=0.3, ci_high=0.5, rounds=40, batch_sizes=(1, 8)
    )
    slower = decided(changed(INT8, paired_speeds=(pair,)))
    (check,) = (each for each in slower.checks if each.name == "paired_speed")

    assert (check.passed, check.value) == (True, 0.4)
    assert check.detail == "slower than fp32 here (0.40 times as fast, 95% interval 0.30 to 0.50); informs"
    assert failed_checks(decided(changed(latency=(), timing_failure="no kernel"))) == ["paired_speed"]


def test_report_about_no_variant_is_refused() -> None:
    with pytest.raises(RecipeError, match="fp64"):
        decided(changed(variant="fp64"))


def test_every_check_with_a_limit_has_a_direction() -> None:
    reports = (GOOD, changed(INT8), changed(SPARSE, device=ON_DEVICE))
    checks = [check for report in reports for check in decided(report).checks]

    assert {check.name for check in checks if check.limit is not None and bound_of(check.name) is None} == set()


def test_every_check_has_a_number() -> None:
    folder = Path(saccade.export.gate.checks.__file__).parent
    texts = [path.read_text("utf-8") for path in folder.glob("*.py")]
    names = {name for text in texts for name in re.findall(r'(?:name=|pending\()"(\w+)"', text)}

    assert len(names) > 20
    assert names <= set(GATE_BY_CHECK)
