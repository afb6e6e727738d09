"""Holds the checks of a variant's gate against the thresholds and figures of its report: what needs no data again.

Limits that a report leaves to its exporter's defaults are not known here, and a threshold that an older report lacks
asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saccade.models.contract.manifest import UNJUDGED, Variant

_ALWAYS = ("file_hash", "thresholds", "parity", "hostile_inputs", "batch_invariance", "determinism")
_METRIC_FIELDS = {
    "metric_drop": "max_metric_drop",
    "class_drop": "max_class_drop",
    "metric_floor": "min_metric",
    "better_than_guessing": "min_skill",
    "test_images": "min_test_images",
}
_ASKED_FIELDS = {
    "latency": "max_p99_ms_batch_1",
    "throughput": "min_images_per_s",
    "memory": "max_memory_mb",
}
_SLICE_FIELDS = {"slice_drop": "max_slice_drop", "slice_floor": "min_slice_metric"}
_CORRUPTION_FIELDS = {
    "corruption_drop": "max_mean_drop",
    "corruption_worst": "max_worst_drop",
    "corruption_clean": "max_clean_drop",
}
_ONLY_LIMITED_FIELDS = {
    "latency_regression": "max_latency_regression",
    "metric_regression": "max_metric_regression",
    "preprocess": "min_preprocess_agreement",
}
_DROPS = ("metric_drop", "operating_drop", "device_metric", "device_operating_drop")
_NO_FAULTS = ("thresholds", "weights_hash", "mask", "silent_layers", "plausible_answers", "hostile_inputs")
_TOLERANCE = 1e-9


def gate_faults(variant: Variant, qualify: Mapping[str, Any], thresholds: Mapping[str, Any]) -> Iterator[str]:
    """Says which checks are missing, have another limit than the report's, or another value than its figures give."""
    checks = {check.name: check for check in variant.gate.checks}
    sliced = [name for name, field in _SLICE_FIELDS.items() if thresholds.get(field) is not None]
    for name in (*_required(variant, thresholds), *(sliced if qualify.get("slices") else ())):
        if name not in checks:
            yield f"the gate has no check {name}, which mode {thresholds.get('mode', 'metric')} asks for"
    for name, limit in _limits(variant, thresholds).items():
        if name in checks and checks[name].limit != limit:
            yield f"check {name} has the limit {checks[name].limit}, the thresholds say {limit}"
    for name, value in _values(qualify, thresholds.get("mode", "metric")).items():
        stated = checks[name].value if name in checks else value
        if not isinstance(stated, float | int) or abs(stated - value) > _TOLERANCE:
            yield f"check {name} says {stated}, the figures give {value:g}"


def _required(variant: Variant, thresholds: Mapping[str, Any]) -> Iterator[str]:
    yield from _ALWAYS
    if thresholds.get("mode", "metric") == "parity":
        yield UNJUDGED
    else:
        yield from (name for name, field in _METRIC_FIELDS.items() if field in thresholds)
    if "min_precision_share" in thresholds:
        yield "effective_precision"
        yield from ("plan_precision", "device_latency") if _needs_gpu(variant) else ("speed_ratio",)
    if "min_agreement" in thresholds:
        yield "agreement"
    if variant.sparsity == "two_four":
        yield from ("mask", "sparse_tactic", "sparse_gain")
    if not _is_dense(variant):
        yield "conversion"
    yield from (name for name, field in _ASKED_FIELDS.items() if thresholds.get(field) is not None)
    if thresholds.get("library_agreement") is not None:
        yield "library_agreement"
    yield from _corruption_limits(thresholds)


def _limits(variant: Variant, thresholds: Mapping[str, Any]) -> dict[str, float | bool | None]:
    """Limits by check, as far as the thresholds name them."""
    is_half = variant.precision in ("fp16", "bf16")
    fields = {
        **_METRIC_FIELDS,
        **_ASKED_FIELDS,
        **_SLICE_FIELDS,
        **_ONLY_LIMITED_FIELDS,
        "conversion": "max_parity_error",
        "sparse_gain": "min_sparse_gain",
        "batch_invariance": "max_half_batch_error" if _needs_gpu(variant) else "max_batch_error",
    }
    informs = []  # checks without a limit
    if _is_dense(variant) and variant.precision not in ("int8", "fp8"):
        fields["parity"] = "max_half_parity_error" if is_half else "max_parity_error"
    else:
        informs.append("parity")
    if thresholds.get("speed_ratio_gates"):
        fields["speed_ratio"] = "min_speed_ratio"
    else:
        informs.append("speed_ratio")
    limits = {name: thresholds[field] for name, field in fields.items() if thresholds.get(field) is not None}
    drop = thresholds.get("max_metric_drop_by_variant", {}).get(variant.name, thresholds.get("max_metric_drop"))
    share = thresholds.get("min_precision_share", {}).get(variant.precision)
    library = thresholds.get("library_agreement")
    return {
        **dict.fromkeys(_NO_FAULTS, 0),
        "determinism": True,
        **dict.fromkeys(informs),
        **limits,
        **_corruption_limits(thresholds),
        **({} if drop is None else dict.fromkeys(_DROPS, drop)),
        **({} if share is None else {"effective_precision": share, "plan_precision": share}),
        **({} if library is None else {"library_agreement": library["min_share"]}),
    }


def _corruption_limits(thresholds: Mapping[str, Any]) -> dict[str, float]:
    section = thresholds.get("corruptions") or {}
    return {name: section[field] for name, field in _CORRUPTION_FIELDS.items() if section.get(field) is not None}


def _values(qualify: Mapping[str, Any], mode: str) -> dict[str, float]:
    """Values by check that follow from the metric's interval: its lower end, and how far that is above the best guess.

    A settled version keeps these of its file; what its device measured has checks of its own.
    """
    lowest, reference = qualify["metric"]["ci_low"], qualify.get("reference")
    values = {"metric_floor": lowest, "test_images": qualify["metric"]["images"]}
    if reference is not None:
        different = reference.get("different_images") or values["test_images"]
        # Of an embedder, the metric counts pictures that a search can find, and parity compares all of them.
        is_whole = mode == "parity" and qualify["metric"]["name"] == "recall_at_1"
        values["test_images"] = different if is_whole else min(values["test_images"], different)
        chance = reference["chance"]
        skill = (min(lowest, reference["metric"]["ci_low"]) - chance) / (1.0 - chance) if chance < 1.0 else 0.0
        values["better_than_guessing"] = skill
    return values


def _is_dense(variant: Variant) -> bool:
    return variant.sparsity == "dense" and not variant.name.endswith("-pruned")


def _needs_gpu(variant: Variant) -> bool:
    return variant.target in ("gpu", "trt")
