"""A measured metric as manifest and report state it. Promises: nothing is measured here."""

from __future__ import annotations

from export.qualification.bootstrap import CONFIDENCE
from export.qualification.evidence import Accuracy
from export.qualification.qualify_report import MetricDrop
from models.manifest import MetricFigure


def metric_figure(accuracy: Accuracy) -> MetricFigure:
    """As manifest and report state it."""
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
    return MetricDrop(value=accuracy.drop.value, ci_low=accuracy.drop.low, ci_high=accuracy.drop.high)
