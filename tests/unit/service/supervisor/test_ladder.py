"""Rungs of a version: gated, by measured figures or by name, each worth its place."""

from __future__ import annotations

import pytest

from saccade.models.contract.manifest import Manifest
from saccade.service.errors import RepositoryError
from saccade.service.supervisor.ladder import ladder_for
from tests.support.versions import manifest_for, with_variants


def manifest(**figures: tuple[float, float]) -> Manifest:
    return with_variants(manifest_for("digits", 1), **figures)


def denied(whole: Manifest, name: str) -> Manifest:
    refused = manifest_for("digits", 1, accepted=False).variants[0].gate
    variants = tuple(
        item.model_copy(update={"gate": refused}) if item.name == name else item for item in whole.variants
    )
    return whole.model_copy(update={"variants": variants})


def levels(whole: Manifest, names: tuple[str, ...] | None, wanted: str = "auto", device: str = "cpu") -> list[str]:
    return [item.name for item in ladder_for(whole, device, wanted, names).variants]


def test_without_a_ladder_the_fastest_serves_alone() -> None:
    assert levels(manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300)), ()) == ["int8-cpu"]


def test_by_figures_the_most_accurate_serves_and_faster_ones_follow() -> None:
    whole = manifest(tiny=(0.80, 900), fp32=(0.95, 100), int8_cpu=(0.94, 300))

    assert levels(whole, None) == ["fp32", "int8-cpu", "tiny"]


def test_a_named_variant_stays_on_top() -> None:
    whole = manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300), tiny=(0.80, 900))

    assert levels(whole, None, wanted="int8-cpu") == ["int8-cpu", "tiny"]


def test_a_rung_that_is_hardly_faster_or_beaten_by_the_one_above_is_left_out() -> None:
    hardly = manifest(fp32=(0.95, 100), fp16=(0.94, 119), int8_cpu=(0.93, 120))
    beaten = manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300), pruned=(0.90, 200))

    assert levels(hardly, None) == ["fp32", "int8-cpu"]
    assert levels(beaten, None) == ["fp32", "int8-cpu"]


def test_a_rung_that_may_be_no_faster_is_left_out() -> None:
    whole = manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300))
    fp32, int8 = whole.variants
    doubt = int8.paired_speeds[0].model_copy(update={"ci_low": 0.98})
    variants = (fp32, int8.model_copy(update={"paired_speeds": (doubt,)}))

    assert levels(whole, None) == ["fp32", "int8-cpu"]
    assert levels(whole.model_copy(update={"variants": variants}), None) == ["fp32"]


def test_of_equally_accurate_ones_the_faster_serves() -> None:
    assert levels(manifest(fp32=(0.95, 100), int8_cpu=(0.95, 300)), None) == ["int8-cpu"]


def test_figures_of_another_kind_of_device_make_no_rung() -> None:
    whole = manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300))

    assert levels(whole, None, device="cuda:0") == ["fp32"]


def test_a_denied_variant_is_no_rung_even_by_name() -> None:
    whole = denied(manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300)), "int8-cpu")
    ladder = ladder_for(whole, "cpu", "auto", ("fp32", "int8-cpu", "absent"))

    assert levels(whole, None) == ["fp32"]
    assert [item.name for item in ladder.variants] == ["fp32"]
    assert ladder.left_out == (
        "int8-cpu: not for cpu (target any, gate denied)",
        "absent: the version has no such variant",
    )


def test_names_decide_the_order() -> None:
    whole = manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300), tiny=(0.80, 900))

    assert levels(whole, ("fp32", "tiny")) == ["fp32", "tiny"]


def test_a_version_with_none_of_the_names_serves_as_without_a_ladder() -> None:
    assert levels(manifest(fp32=(0.95, 100), int8_cpu=(0.94, 300)), ("fp16", "tiny")) == ["int8-cpu"]


def test_nothing_to_serve_is_an_error() -> None:
    with pytest.raises(RepositoryError, match="no variant for device"):
        ladder_for(denied(manifest(fp32=(0.95, 100)), "fp32"), "cpu", "auto", None)


@pytest.mark.parametrize("metric", [0.9500001, 0.9499999])
def test_fp32_in_openvino_is_no_cheaper_level_but_the_best_where_it_is_faster(metric: float) -> None:
    whole = manifest(fp32=(0.95, 100), fp32_openvino=(metric, 150), int8_cpu=(0.94, 300))
    variants = (
        item.model_copy(update={"target": "openvino"}) if item.name == "fp32-openvino" else item
        for item in whole.variants
    )
    whole = whole.model_copy(update={"variants": tuple(variants)})
    absent = {"openvino/fp32": "OpenVINO is not installed"}

    assert levels(whole, None) == ["fp32-openvino", "int8-cpu"]
    assert [item.name for item in ladder_for(whole, "cpu", "auto", None, absent).variants] == ["fp32", "int8-cpu"]


def test_bf16_is_the_step_between_fp32_and_int8_where_it_can_run() -> None:
    whole = manifest(fp32=(0.95, 100), bf16_cpu=(0.949, 140), int8_cpu=(0.94, 300))
    variants = (
        item.model_copy(update={"precision": "bf16", "target": "openvino"}) if item.name == "bf16-cpu" else item
        for item in whole.variants
    )
    whole = whole.model_copy(update={"variants": tuple(variants)})
    absent = {"openvino/bf16": "OpenVINO is not installed"}
    named = ladder_for(whole, "cpu", "auto", ("bf16-cpu", "int8-cpu"), absent)

    assert levels(whole, None) == ["fp32", "bf16-cpu", "int8-cpu"]
    assert [item.name for item in ladder_for(whole, "cpu", "auto", None, absent).variants] == ["fp32", "int8-cpu"]
    assert [item.name for item in named.variants] == ["int8-cpu"]
    assert named.left_out == ("bf16-cpu: OpenVINO is not installed",)
