"""Decides whether scores are probabilities already, so that no second softmax or sigmoid is added."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_signs import Origin, OutputSign
from saccade.export.sources.onnx_words import ScoreKind

_SLACK = 1e-3  # of a sum of probabilities in float16
_SUM_SLACK = 1e-2  # of what a softmax gave, which was averaged or rounded
_CHOICES = frozenset(("Softmax", "LogSoftmax"))
_LINEAR = frozenset(
    ("Gemm", "MatMul", "Add", "Conv", "ReduceMean", "GlobalAveragePool", "BatchNormalization", "ConvTranspose")
)
PROBABILITIES = frozenset(("Softmax", "Sigmoid", "HardSigmoid"))


def score_kind(file: str, output: OutputSign, given: ScoreKind | None) -> tuple[ScoreKind, Origin, str]:
    """What the numbers of a classifier or of one channel are. Raises SourceError where nothing tells it, or two do."""
    is_flat = len(output.shape) == 1 or output.shape[1:] == (1, 1)  # a classifier's
    is_single = output.shape[0] == 1 if is_flat else 1 in (output.shape[0], output.shape[-1])
    found, origin, why = _seen(output, is_single=is_single)
    if _are_percentages(output) and not is_single:
        raise SourceError(
            f"{file}: every row of {output} sums to 100 and none of its numbers is negative: percentages, which are "
            "neither probabilities nor raw scores; export the network without the factor of 100"
        )
    if given == "logits" and is_single:
        raise SourceError(
            f"{file}: a softmax of one class is always 1, and {output} has one; write `outputs: {{scores: sigmoid}}`, "
            "or `scores: probabilities` where they are in 0..1 already"
        )
    if output.made_by in PROBABILITIES and found is None and given in (None, "logits", "sigmoid"):
        raise SourceError(
            f"{file}: {output} ends in {output.made_by}, and its rows do not sum to 1, so they are several choices, or "
            "the softmax is over another axis than the classes; write `outputs: {scores: probabilities}` if each "
            "number is the probability of a class by itself"
        )
    if given is not None:
        if found == "probabilities" and given != "probabilities":
            raise SourceError(f"{file}: outputs.scores: {given}, but {output} holds probabilities already ({why})")
        if given == "probabilities" and not _in_unit_range(output):
            raise SourceError(f"{file}: outputs.scores: probabilities, but {output} has values outside of 0..1")
        return given, "said", "by the recipe"
    if found == "logits" and is_single and not is_flat and output.values is not None and output.values.min() >= 0:
        raise SourceError(
            f"{file}: {output} is one number per pixel to {output.values.max():.3g} and never negative, so it is "
            "neither a probability nor a raw score; export a foreground in 0..1. Depth and other amounts per pixel are "
            "served as `task: {task: image, picture: depth}`"
        )
    if found == "logits" and is_single and not is_flat:
        raise SourceError(
            f"{file}: {output} is one raw number per pixel: for a foreground write `outputs: {{scores: sigmoid}}`; "
            "for depth and other amounts per pixel `task: {task: image, picture: depth}`"
        )
    if found == "logits" and is_single:
        raise SourceError(
            f"{file}: {output} is one raw number, and a softmax of one class is always 1; write "
            "`outputs: {scores: sigmoid}` to make it the probability of the second of two labels, if it is a score; an "
            "amount, such as an age, is not served"
        )
    if found is None:
        instead = "an amount, such as depth or a quality" if is_single else "not"
        raise SourceError(
            f"{file}: {output} has values that do not sum to 1, made by {output.made_by or 'the input'}, which may be "
            f"probabilities of each class by itself or {instead}; write `outputs: {{scores: probabilities}}`, "
            "`logits` or `sigmoid`"
        )
    return found, origin, why


def _seen(output: OutputSign, *, is_single: bool) -> tuple[ScoreKind | None, Origin, str]:
    if output.made_by in _CHOICES and not is_single and not _is_one_choice(output):
        return None, "found", ""  # over another axis, or over groups: several choices in a row
    if output.made_by in PROBABILITIES:
        return "probabilities", "said", f"by the graph, which ends in {output.made_by}"
    if output.made_by == "LogSoftmax":
        return "logits", "said", "by the graph, which ends in LogSoftmax"
    if not _in_unit_range(output) and output.values is not None:
        if output.values.min() >= 0.0 and not is_single:
            return "logits", "assumed", f"values to {output.values.max():.3g}, and none is negative as raw scores are"
        return "logits", "found", f"values from {output.values.min():.3g} to {output.values.max():.3g}"
    if output.values is not None and output.shape[0] != 1 and _sums_to_one(output):
        return "probabilities", "found", "values in 0..1 that sum to 1"
    if output.made_by in _LINEAR:
        return "logits", "said", f"by the graph, which ends in {output.made_by}"
    return None, "found", ""


def _in_unit_range(output: OutputSign) -> bool:
    values = output.values
    return values is None or bool(values.min() >= -_SLACK and values.max() <= 1.0 + _SLACK)


def _sums_to_one(output: OutputSign) -> bool:
    assert output.values is not None
    return bool(np.abs(_sums(output.values) - 1.0).max(initial=0.0) <= _SLACK)


def _is_one_choice(output: OutputSign) -> bool:
    """Whether a softmax was over the classes, as far as values show it."""
    if output.values is None:
        return True
    values = output.values.astype(np.float64)
    sums = _sums(np.exp(values) if output.made_by == "LogSoftmax" else values)
    return bool(np.abs(sums - 1.0).max(initial=0.0) <= _SUM_SLACK)


def _are_percentages(output: OutputSign) -> bool:
    values = output.values
    if values is None or not values.size or values.min() < 0:
        return False
    return bool(np.abs(_sums(values) - 100.0).max() <= 100.0 * _SLACK)


def _sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """Over the classes, of (pictures, classes) or (pictures, classes, 1, 1)."""
    total: NDArray[np.float64] = values.reshape(*values.shape[:2], -1).astype(np.float64).sum(1)
    return total
