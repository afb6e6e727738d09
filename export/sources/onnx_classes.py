"""Decides whether scores are probabilities already, so that no second softmax or sigmoid is added."""

from __future__ import annotations

from typing import Literal

import numpy as np

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_signs import OutputSign
from saccade.export.sources.onnx_words import ScoreKind

_SLACK = 1e-3  # of a sum of probabilities in float16
_LINEAR = frozenset(
    ("Gemm", "MatMul", "Add", "Conv", "ReduceMean", "GlobalAveragePool", "BatchNormalization", "ConvTranspose")
)
PROBABILITIES = frozenset(("Softmax", "Sigmoid", "HardSigmoid"))


def score_kind(
    file: str, output: OutputSign, given: ScoreKind | None
) -> tuple[ScoreKind, Literal["said", "found"], str]:
    """What the numbers of a classifier or of one channel are. Raises SourceError where nothing tells it, or two do."""
    is_single = output.shape[0] == 1 or output.shape[-1] == 1
    found, origin, why = _seen(output)
    if given == "logits" and is_single:
        raise SourceError(
            f"{file}: a softmax of one class is always 1, and {output} has one; write `outputs: {{scores: sigmoid}}`, "
            "or `scores: probabilities` where they are in 0..1 already"
        )
    if given is not None:
        if found == "probabilities" and given != "probabilities":
            raise SourceError(f"{file}: outputs.scores: {given}, but {output} holds probabilities already ({why})")
        if given == "probabilities" and not _in_unit_range(output):
            raise SourceError(f"{file}: outputs.scores: probabilities, but {output} has values outside of 0..1")
        return given, "said", "by the recipe"
    if found == "logits" and is_single and len(output.shape) == 3:
        raise SourceError(
            f"{file}: {output} is one raw number per pixel: for a foreground write `outputs: {{scores: sigmoid}}`; "
            "depth and other amounts per pixel are not served"
        )
    if found == "logits" and is_single:
        raise SourceError(
            f"{file}: {output} is one raw number, and a softmax of one class is always 1; write "
            "`outputs: {scores: sigmoid}` to make it the probability of the second of two labels"
        )
    if found is None:
        raise SourceError(
            f"{file}: {output} has values in 0..1 that do not sum to 1, made by {output.made_by or 'the input'}, which "
            "may be probabilities or not; write `outputs: {scores: probabilities}`, `logits` or `sigmoid`"
        )
    return found, origin, why


def _seen(output: OutputSign) -> tuple[ScoreKind | None, Literal["said", "found"], str]:
    if output.made_by in PROBABILITIES:
        return "probabilities", "said", f"by the graph, which ends in {output.made_by}"
    if output.made_by == "LogSoftmax":
        return "logits", "said", "by the graph, which ends in LogSoftmax"
    if not _in_unit_range(output) and output.values is not None:
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
    sums = output.values.reshape(*output.values.shape[:2], -1).astype(np.float64).sum(1)
    return bool(np.abs(sums - 1.0).max() <= _SLACK)
