"""Which form of the CUDA provider is kept."""

from __future__ import annotations

from saccade.service.backends.onnxruntime_forms import NHWC_FUSED, PLAIN, MeasuredForm, fastest, forms_for, tf32_option


def test_form_that_is_clearly_faster_is_kept() -> None:
    assert fastest([MeasuredForm(PLAIN, 9145.0), MeasuredForm(NHWC_FUSED, 17313.0)]) == NHWC_FUSED


def test_plain_is_kept_where_the_difference_is_noise() -> None:
    assert fastest([MeasuredForm(PLAIN, 100.0), MeasuredForm(NHWC_FUSED, 102.0)]) == PLAIN


def test_form_that_failed_is_not_kept_whatever_it_measured() -> None:
    assert fastest([MeasuredForm(PLAIN, 100.0), MeasuredForm(NHWC_FUSED, 900.0, "no memory")]) == PLAIN


def test_other_form_serves_where_plain_failed_and_plain_says_why_where_all_did() -> None:
    failed = MeasuredForm(PLAIN, failure="no plan")

    assert fastest([failed, MeasuredForm(NHWC_FUSED, 1.0)]) == NHWC_FUSED
    assert fastest([failed, MeasuredForm(NHWC_FUSED, failure="no plan")]) == PLAIN


def test_only_reduced_precisions_have_tensor_cores_and_a_choice() -> None:
    assert [(forms_for(name), tf32_option(name)) for name in ("fp32", "int8", "fp8")] == [((PLAIN,), "0")] * 3
    assert [(forms_for(name), tf32_option(name)) for name in ("fp16", "bf16")] == [((PLAIN, NHWC_FUSED), "1")] * 2
