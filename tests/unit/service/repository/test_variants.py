"""The variant a device serves: the fastest measured one whose gate passed."""

from __future__ import annotations

from typing import Any

import pytest

from saccade.models.contract.manifest import GateCheck, GateDecision, LatencyFigure, Manifest, MeasuredDevice, Variant
from saccade.service.errors import RepositoryError
from saccade.service.repository.variants import choose_variant, images_per_s
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


def test_auto_takes_the_most_images_per_second() -> None:
    manifest = manifest_with(variant("fp32", images_per_s=100.0), variant("int8-cpu", images_per_s=300.0))

    assert choose_variant(manifest, "cpu", "auto").name == "int8-cpu"


def test_auto_never_takes_a_variant_whose_gate_was_denied() -> None:
    manifest = manifest_with(variant("fp32", images_per_s=100.0), variant("int8-cpu", images_per_s=300.0, denied=True))

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
