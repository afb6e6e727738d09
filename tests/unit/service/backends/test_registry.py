"""Backends by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.backends import registry
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.registry import absent_kinds, backend_name, load_backend
from saccade.service.errors import BackendError
from tests.support.versions import manifest_for


def test_unknown_backend_names_those_that_exist() -> None:
    manifest = manifest_for("digits", 1)
    request = LoadRequest(Path("absent"), manifest.input, manifest.outputs, "cpu", 1, False)

    with pytest.raises(BackendError, match="no backend 'tflite'; there are: fake, onnxruntime, openvino, tensorrt"):
        load_backend("tflite", request)


def test_a_variant_is_opened_by_the_runtime_that_it_was_measured_with() -> None:
    float_variant = manifest_for("digits", 1).variants[0]
    half = float_variant.model_copy(update={"precision": "bf16", "target": "openvino"})
    whole = float_variant.model_copy(update={"target": "openvino"})
    variants = (float_variant, half, whole)

    assert [backend_name(each, "auto") for each in variants] == ["onnxruntime", "openvino", "openvino"]
    assert [backend_name(each, "fake") for each in variants] == ["fake"] * 3


def test_a_setting_or_the_machine_says_why_a_runtime_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    old = "this processor has no bfloat16"
    monkeypatch.setattr(registry, "why_absent", lambda precision: old if precision == "bf16" else "")

    assert absent_kinds("auto") == {"openvino/bf16": old}
    assert absent_kinds("onnxruntime") == dict.fromkeys(
        ("openvino/fp32", "openvino/bf16", "openvino/int8"), "SACCADE_BACKEND is onnxruntime"
    )
    assert absent_kinds("fake") == {}
    monkeypatch.setattr(registry, "why_absent", lambda precision: "")
    assert absent_kinds("auto") == {}
