"""The variant a device serves: the most exact one whose gate passed, unless another is faster beyond doubt."""

from __future__ import annotations

from typing import Any

import pytest

from saccade.models.contract.manifest import GateCheck, GateDecision, LatencyFigure, Manifest, MeasuredDevice, Variant
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.service.errors import RepositoryError
from saccade.service.repository.variants import choose_variant, comparisons, images_per_s, pair_of, with_pairs
from tests.support.versions import manifest_for


def variant(name: str, **changes: Any) -> Variant:
    base = manifest_for("digits", 1).variants[0]
    rate = changes.pop("images_per_s", None)
    if rate is not None:
        changes["latency"] = (LatencyFigure(batch_size=1, p50_ms=1.0, p90_ms=1.0, p99_ms=1.0, images_per_s=rate),)
    if changes.pop("pending", False):
        waits = GateCheck(name="device_latency", passed=False, pending=True, value=None, limit=None, detail="")
        changes["gate"] = GateDecision(accepted=False, checks=(waits,))
    if changes.pop("denied", False):
        check = GateCheck(name="accuracy", passed=False, value=0.5, limit=0.9, detail="")
        changes["gate"] = GateDecision(accepted=False, checks=(check,))
    return base.model_copy(update={"name": name, **changes})


def manifest_with(*variants: Variant) -> Manifest:
    return manifest_for("digits", 1).model_copy(update={"variants": variants})


def pair(against: str, low: float, ratio: float, high: float, device_kind: str = "cpu") -> PairedSpeed:
    return PairedSpeed.model_validate(
        {"against": against, "device_kind": device_kind, "ratio": ratio, "ci_low": low, "ci_high": high}
        | {"rounds": 20, "batch_sizes": (1, 8)}
    )


def int8(*pairs: PairedSpeed, **changes: Any) -> Variant:
    return variant("int8-cpu", precision="int8", paired_speeds=pairs, **changes)


def test_auto_takes_the_variant_that_is_faster_beyond_doubt() -> None:
    manifest = manifest_with(variant("fp32"), int8(pair("fp32", 1.5, 1.6, 1.7)))

    assert choose_variant(manifest, "cpu", "auto").name == "int8-cpu"
    assert choose_variant(manifest_with(*reversed(manifest.variants)), "cpu", "auto").name == "int8-cpu"


@pytest.mark.parametrize(
    "pairs",
    [
        (pair("fp32", 0.99, 2.0, 3.0),),
        (pair("fp32", 0.4, 0.5, 0.6),),
        (pair("fp32", 1.5, 1.6, 1.7, "cuda"),),
        (),
    ],
    ids=["in doubt", "slower", "elsewhere", "not compared"],
)
def test_otherwise_the_more_exact_one_answers_whatever_separate_figures_say(pairs: tuple[PairedSpeed, ...]) -> None:
    manifest = manifest_with(int8(*pairs, images_per_s=9000.0), variant("fp32", images_per_s=100.0))

    assert choose_variant(manifest, "cpu", "auto").name == "fp32"


def test_of_two_faster_ones_the_less_exact_must_beat_the_other_too() -> None:
    pruned = variant("pruned", paired_speeds=(pair("fp32", 1.9, 2.0, 2.1),), sparsity="two_four")
    fp32, quick = variant("fp32"), (pair("fp32", 2.0, 2.1, 2.2), pair("pruned", 0.98, 1.05, 1.1))
    slow = (pair("fp32", 1.1, 1.2, 1.3), pair("pruned", 0.5, 0.6, 0.7))
    beyond = (pair("fp32", 2.0, 2.1, 2.2), pair("pruned", 1.02, 1.05, 1.1))

    def chosen(pairs: tuple[PairedSpeed, ...]) -> str:
        both = variant("both", precision="int8", sparsity="two_four", paired_speeds=pairs)
        return choose_variant(manifest_with(fp32, pruned, both), "cpu", "auto").name

    assert [chosen(pairs) for pairs in (quick, slow, beyond)] == ["pruned", "pruned", "both"]


def test_a_comparison_is_the_same_from_either_side() -> None:
    fp32, other = variant("fp32"), int8(pair("fp32", 1.6, 2.0, 2.5))
    turned = pair_of(fp32, other, "cpu")

    assert turned is not None
    assert (turned.against, turned.ratio, turned.ci_low, turned.ci_high) == ("int8-cpu", 0.5, 0.4, 0.625)
    assert pair_of(fp32, fp32, "cpu") is None


def test_words_say_how_the_chosen_one_compares() -> None:
    slower = manifest_with(variant("fp32"), int8(pair("fp32", 0.9, 1.0, 1.1)))
    faster = with_pairs(slower, {"int8-cpu": (pair("fp32", 1.5, 1.6, 1.7),)})
    bare = with_pairs(slower, {})

    assert comparisons(slower, "cpu", slower.variants[0]) == (
        "int8-cpu is not surely faster than fp32 here (1.00 times as fast, 95% interval 0.90 to 1.10)"
    )
    assert comparisons(faster, "cpu", faster.variants[1]) == ("1.60 times as fast as fp32 (95% interval 1.50 to 1.70)")
    assert comparisons(bare, "cpu", bare.variants[0]) == (
        "int8-cpu was not measured in turns with it on this kind of device"
    )
    assert comparisons(manifest_with(variant("fp32")), "cpu", variant("fp32")) == ""


def test_auto_never_takes_a_variant_whose_gate_was_denied() -> None:
    manifest = manifest_with(variant("fp32"), int8(pair("fp32", 1.5, 1.6, 1.7), denied=True))

    assert choose_variant(manifest, "cpu", "auto").name == "fp32"


@pytest.mark.parametrize("wanted", ["auto", "int8-trt"])
def test_pending_variant_is_never_taken_and_the_refusal_says_what_it_waits_for(wanted: str) -> None:
    manifest = manifest_with(variant("int8-trt", target="trt", images_per_s=9000.0, pending=True))

    with pytest.raises(RepositoryError, match=r"int8-trt \(trt, gate pending: waits for a device\)"):
        choose_variant(manifest, "cuda:0", wanted)
    assert choose_variant(manifest_with(*manifest.variants, variant("fp32")), "cuda:0", "auto").name == "fp32"


def test_figures_of_another_device_do_not_count() -> None:
    gpu = MeasuredDevice(kind="cuda", name="H200", threads=1)
    manifest = manifest_with(
        variant("fast-elsewhere", images_per_s=9000.0, measured_on=gpu), variant("fp32", images_per_s=100.0)
    )

    assert choose_variant(manifest, "cpu", "auto").name == "fp32"
    assert choose_variant(manifest, "cuda:0", "auto").name == "fast-elsewhere"


def test_targets_of_other_devices_are_left_out() -> None:
    manifest = manifest_with(
        variant("int8-cpu", target="cpu"), variant("int8-trt", target="trt"), variant("fp16", target="gpu")
    )

    assert choose_variant(manifest, "cpu", "auto").name == "int8-cpu"
    assert choose_variant(manifest, "cuda:1", "auto").name == "fp16"
    assert choose_variant(manifest, "MIG-5a1b", "auto").name == "fp16"


def test_named_variant_is_taken_even_when_slower() -> None:
    manifest = manifest_with(variant("fp32", images_per_s=100.0), variant("int8-cpu", images_per_s=300.0))

    assert choose_variant(manifest, "cpu", "fp32").name == "fp32"


@pytest.mark.parametrize("wanted", ["auto", "int8-cpu", "fp32"])
def test_refusal_names_what_there_is(wanted: str) -> None:
    manifest = manifest_with(variant("fp32", denied=True), variant("int8-trt", target="trt"))

    with pytest.raises(RepositoryError, match=r"fp32 \(any, gate denied\), int8-trt \(trt, gate passed\)"):
        choose_variant(manifest, "cpu", wanted)


def test_variant_without_figures_comes_last() -> None:
    assert images_per_s(variant("bare", latency=()), "cpu") == 0.0


ABSENT = {"openvino/bf16": "OpenVINO is not installed"}


def bf16(*pairs: PairedSpeed, **changes: Any) -> Variant:
    return variant("bf16-cpu", precision="bf16", target="openvino", paired_speeds=pairs, **changes)


def test_where_int8_is_denied_bf16_serves_if_it_is_faster_beyond_doubt() -> None:
    faster, doubtful = bf16(pair("fp32", 1.3, 1.4, 1.5)), bf16(pair("fp32", 0.9, 1.1, 1.5))
    denied = int8(pair("fp32", 2.0, 2.1, 2.2), denied=True)

    assert choose_variant(manifest_with(variant("fp32"), faster, denied), "cpu", "auto").name == "bf16-cpu"
    assert choose_variant(manifest_with(variant("fp32"), doubtful, denied), "cpu", "auto").name == "fp32"


def test_int8_must_beat_bf16_too() -> None:
    fp32, half = variant("fp32"), bf16(pair("fp32", 1.3, 1.4, 1.5))
    quick = int8(pair("fp32", 1.9, 2.0, 2.1), pair("bf16-cpu", 1.2, 1.3, 1.4))
    equal = int8(pair("fp32", 1.3, 1.4, 1.5), pair("bf16-cpu", 0.9, 1.0, 1.1))

    chosen = [choose_variant(manifest_with(fp32, half, each), "cpu", "auto").name for each in (quick, equal)]

    assert chosen == ["int8-cpu", "bf16-cpu"]


def test_a_variant_of_a_runtime_that_is_absent_is_not_chosen_and_the_reason_is_told() -> None:
    manifest = manifest_with(variant("fp32"), bf16(pair("fp32", 1.3, 1.4, 1.5)))

    chosen = choose_variant(manifest, "cpu", "auto", ABSENT)

    assert chosen.name == "fp32"
    assert comparisons(manifest, "cpu", chosen, ABSENT) == "bf16-cpu cannot serve here: OpenVINO is not installed"


def in_openvino(*pairs: PairedSpeed, metric: float) -> Variant:
    whole = variant("fp32-openvino", target="openvino", paired_speeds=pairs)
    return whole.model_copy(update={"metric": whole.metric.model_copy(update={"value": metric})})


@pytest.mark.parametrize("metric", [0.0, 1.0], ids=["a worse metric", "a better metric"])
def test_fp32_is_as_exact_in_both_runtimes_so_onnxruntime_serves_unless_the_other_is_faster(metric: float) -> None:
    fp32 = variant("fp32", target="any")
    faster = in_openvino(pair("fp32", 1.3, 1.4, 1.5), metric=metric)
    doubtful = in_openvino(pair("fp32", 0.9, 1.1, 1.5), metric=metric)

    assert choose_variant(manifest_with(faster, fp32), "cpu", "auto").name == "fp32-openvino"
    assert choose_variant(manifest_with(doubtful, fp32), "cpu", "auto").name == "fp32"


def test_a_less_exact_variant_must_beat_fp32_in_openvino_too() -> None:
    whole = in_openvino(pair("fp32", 1.3, 1.4, 1.5), metric=0.5)
    slower = int8(pair("fp32", 1.1, 1.2, 1.3), pair("fp32-openvino", 0.7, 0.8, 0.9))

    assert choose_variant(manifest_with(slower, whole, variant("fp32", target="any")), "cpu", "auto").name == whole.name


@pytest.mark.parametrize("wanted", ["bf16-cpu", "auto"])
def test_when_it_is_named_or_alone_the_reason_refuses(wanted: str) -> None:
    manifest = manifest_with(bf16())

    with pytest.raises(RepositoryError, match=r"^variant bf16-cpu of digits cannot serve here: OpenVINO"):
        choose_variant(manifest, "cpu", wanted, ABSENT)


def test_gpus_are_not_told_of_it() -> None:
    manifest = manifest_with(variant("fp32"), bf16())

    assert comparisons(manifest, "cuda:0", choose_variant(manifest, "cuda:0", "auto", ABSENT), ABSENT) == ""
