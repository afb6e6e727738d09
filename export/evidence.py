"""What a variant got right, per image. Promises: any weighting of images gives the task's metric without a rerun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from export.bootstrap import Interval, interval_of, resample_weights

MetricName = Literal["top1", "map", "miou"]
Weights = NDArray[np.int64]  # (resamples, images): how often each image counts


class Evidence(Protocol):
    """Per-image results of one task on one split."""

    @property
    def metric(self) -> MetricName: ...

    @property
    def images(self) -> int: ...

    def values(self, weights: Weights) -> NDArray[np.float64]:
        """The metric for each row of `weights`."""

    def per_class(self) -> NDArray[np.float64]:
        """The metric of each class on all images; NaN where a class does not occur."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassifyEvidence:
    correct: NDArray[np.bool_]  # (n,)
    class_ids: NDArray[np.int64]  # (n,) truth
    classes: int
    metric: MetricName = "top1"

    @property
    def images(self) -> int:
        return len(self.correct)

    def values(self, weights: Weights) -> NDArray[np.float64]:
        result: NDArray[np.float64] = weights @ self.correct.astype(np.float64) / weights.sum(1)
        return result

    def per_class(self) -> NDArray[np.float64]:
        hits = np.bincount(self.class_ids, self.correct, self.classes)
        totals = np.bincount(self.class_ids, minlength=self.classes)
        return _ratio(hits, totals)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentEvidence:
    confusions: NDArray[np.int64]  # (n, classes, classes) pixels; row = truth, column = predicted
    metric: MetricName = "miou"

    @property
    def images(self) -> int:
        return len(self.confusions)

    def values(self, weights: Weights) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.nanmean(self._class_iou(weights), axis=1)
        return result

    def per_class(self) -> NDArray[np.float64]:
        figures: NDArray[np.float64] = self._class_iou(np.ones((1, self.images), np.int64))[0]
        return figures

    def _class_iou(self, weights: Weights) -> NDArray[np.float64]:
        """(resamples, classes)."""
        totals = np.einsum("ri,ikl->rkl", weights, self.confusions, optimize=True)
        hits = np.diagonal(totals, axis1=1, axis2=2)
        return _ratio(hits, totals.sum(1) + totals.sum(2) - hits)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A variant's metric with its interval, the same for the drop against a reference, and per class."""

    metric: MetricName
    images: int
    value: Interval
    drop: Interval  # reference - variant, same resamples
    per_class: tuple[float | None, ...]


def point_value(evidence: Evidence) -> float:
    """The metric on all images, each once."""
    return float(evidence.values(np.ones((1, evidence.images), np.int64))[0])


def accuracy_of(evidence: Evidence, reference: Evidence, resamples: int) -> Accuracy:
    """Figures of `evidence`; both must come from the same images in the same order."""
    if evidence.images != reference.images:
        raise ValueError(f"{evidence.images} images against {reference.images}: the figures cannot be paired")
    weights = resample_weights(evidence.images, resamples)
    found, expected = evidence.values(weights), reference.values(weights)
    value, reference_value = point_value(evidence), point_value(reference)
    return Accuracy(
        evidence.metric,
        evidence.images,
        interval_of(value, found),
        interval_of(reference_value - value, expected - found),
        tuple(None if np.isnan(figure) else float(figure) for figure in evidence.per_class()),
    )


def _ratio(parts: NDArray[np.number], totals: NDArray[np.number]) -> NDArray[np.float64]:
    """Elementwise parts / totals, NaN where the total is zero."""
    result = np.full(totals.shape, np.nan)
    np.divide(parts, totals, out=result, where=totals > 0)
    return result
