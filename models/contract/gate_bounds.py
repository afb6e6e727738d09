"""Which way each check of the gate has to reach its limit. Promises: pure; unknown checks are left alone."""

from __future__ import annotations

from typing import Literal

Bound = Literal["at_most", "at_least", "equal"]

_AT_MOST = (
    "weights_hash",
    "thresholds",
    "conversion",
    "parity",
    "mask",
    "silent_layers",
    "plausible_answers",
    "metric_drop",
    "operating_drop",
    "class_drop",
    "slice_drop",
    "corruption_drop",
    "corruption_worst",
    "corruption_clean",
    "device_metric",
    "device_operating_drop",
    "metric_regression",
    "hostile_inputs",
    "batch_invariance",
    "latency",
    "memory",
    "latency_regression",
)
_AT_LEAST = (
    "preprocess",
    "library_agreement",
    "effective_precision",
    "plan_precision",
    "sparse_tactic",
    "sparse_gain",
    "agreement",
    "test_images",
    "better_than_guessing",
    "metric_floor",
    "slice_floor",
    "speed_ratio",
    "throughput",
)
_EQUAL = ("file_hash", "report_hash", "determinism")
_BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(_AT_MOST, "at_most"),
    **dict.fromkeys(_AT_LEAST, "at_least"),
    **dict.fromkeys(_EQUAL, "equal"),
}


def bound_of(check: str) -> Bound | None:
    """None for checks that only say yes or no, and for those of a newer gate."""
    return _BOUNDS.get(check)


def is_beyond_limit(check: str, value: float | str | bool | None, limit: float | str | bool | None) -> bool:
    """Whether a check cannot have passed with this value; texts and missing numbers decide only where both are equal.

    A text in place of a number is an excuse that the recipe asked for, and says so itself.
    """
    bound = bound_of(check)
    if bound == "equal":
        return value != limit
    if bound is None or isinstance(value, str | None) or isinstance(limit, str | None):
        return False
    return value > limit if bound == "at_most" else value < limit
