"""Converts a measured metric to the form that manifest and report state."""

from __future__ import annotations

from saccade.export.qualification.bootstrap import CONFIDENCE
from saccade.export.qualification.evidence import Accuracy
from saccade.export.qualification.qualify_report import MetricDrop
from saccade.models.contract.manifest import MetricFigure


def metric_figure(accuracy: Accuracy) -> MetricFigure:
    """Returns the metric in the form that manifest and report state."""
    return MetricFigure(
        name=accuracy.metric,
        value=accuracy.value.value,
        ci_low=accuracy.value.low,
        ci_high=accuracy.value.high,
        confidence=CONFIDENCE,
        split="test",
        images=accuracy.images,
    )


def metric_drop(accuracy: Accuracy) -> MetricDrop:
    drop = accuracy.drop
    return MetricDrop(value=drop.value, ci_low=drop.low, ci_high=drop.high, is_never_worse=accuracy.is_never_worse)
