"""Keeps what a variant got right per image, so that any weighting of images gives the metric without another run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.bootstrap import (
    BootstrapInterval,
    class_drop_interval,
    mean_interval,
    metric_drop_interval,
    metric_interval,
    rate_drop_interval,
    rate_interval,
    resample_weights,
)
from saccade.export.qualification.picture_figures import PictureEvidence
from saccade.models.contract.manifest import MetricName

Weights = NDArray[np.int64]  # (resamples, images): how often each image counts


class Evidence(Protocol):
    """Per-image results of one task on one split."""

    @property
    def metric(self) -> MetricName: ...

    @property
    def images(self) -> int: ...

    def values(self, weights: Weights) -> NDArray[np.float64]:
        """Returns the metric for each row of `weights`."""

    def class_values(self, weights: Weights) -> NDArray[np.float64]:
        """Returns the metric of each class (resamples, classes); NaN for a class that the drawn images lack."""

    def per_class(self) -> NDArray[np.float64]:
        """Returns the metric of each class on all images; NaN for a class that does not occur."""

    def class_images(self) -> NDArray[np.int64]:
        """Returns how many images show each class, (classes,)."""

    def part(self, rows: NDArray[np.int64]) -> Evidence:
        """Returns the evidence of some images alone."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassifyEvidence:
    predicted: NDArray[np.int64]  # (n,) the first class of each answer
    class_ids: NDArray[np.int64]  # (n,) truth
    classes: int
    metric: MetricName = "top1"

    @property
    def images(self) -> int:
        return len(self.class_ids)

    @property
    def correct(self) -> NDArray[np.bool_]:
        is_equal: NDArray[np.bool_] = self.predicted == self.class_ids
        return is_equal

    def confusion(self) -> NDArray[np.int64]:
        """Returns image counts (classes, classes), rows = truth, columns = predicted; unknown ids are left out."""
        known = (self.predicted >= 0) & (self.predicted < self.classes)
        places = self.class_ids[known] * self.classes + self.predicted[known]
        counts = np.bincount(places, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes).astype(np.int64)

    def values(self, weights: Weights) -> NDArray[np.float64]:
        result: NDArray[np.float64] = weights @ self.correct.astype(np.float64) / weights.sum(1)
        return result

    def class_values(self, weights: Weights) -> NDArray[np.float64]:
        is_class = (self.class_ids[:, None] == np.arange(self.classes)).astype(np.float64)
        return _ratio(weights @ (is_class * self.correct[:, None]), weights @ is_class)

    def per_class(self) -> NDArray[np.float64]:
        hits = np.bincount(self.class_ids, self.correct, self.classes)
        return _ratio(hits, self.class_images())

    def class_images(self) -> NDArray[np.int64]:
        return np.bincount(self.class_ids, minlength=self.classes)

    def part(self, rows: NDArray[np.int64]) -> ClassifyEvidence:
        return replace(self, predicted=self.predicted[rows], class_ids=self.class_ids[rows])


@dataclass(frozen=True, slots=True, eq=False)
class SegmentEvidence:
    confusions: NDArray[np.int64]  # (n, classes, classes) pixels; rows = truth, columns = predicted
    metric: MetricName = "miou"

    @property
    def images(self) -> int:
        return len(self.confusions)

    def values(self, weights: Weights) -> NDArray[np.float64]:
        return mean_of_classes(self.class_values(weights))

    def per_class(self) -> NDArray[np.float64]:
        figures: NDArray[np.float64] = self.class_values(np.ones((1, self.images), np.int64))[0]
        return figures

    def class_values(self, weights: Weights) -> NDArray[np.float64]:
        totals = np.einsum("ri,ikl->rkl", weights, self.confusions, optimize=True)
        hits = np.diagonal(totals, axis1=1, axis2=2)
        return _ratio(hits, totals.sum(1) + totals.sum(2) - hits)

    def class_images(self) -> NDArray[np.int64]:
        return np.asarray((self.confusions.sum(2) > 0).sum(0))

    def part(self, rows: NDArray[np.int64]) -> SegmentEvidence:
        return replace(self, confusions=self.confusions[rows])


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A variant's metric and its drop against a reference, each with its interval, and the drop by class."""

    metric: MetricName
    images: int
    value: BootstrapInterval
    drop: BootstrapInterval  # reference - variant, on the same resamples
    per_class: tuple[float | None, ...]
    worst_class: ClassDrop | None  # None: no class occurs
    # true: the variant is at least as good as the reference on every selection of the images
    is_never_worse: bool = False


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """The drop of the class that may have lost most."""

    class_id: int
    drop: BootstrapInterval  # reference - variant, on the same resamples
    is_never_worse: bool = False  # true: no selection of the images shows a drop

    @property
    def judged(self) -> float:
        """Returns what a limit applies to: the upper end, or the measured drop where nothing was seen to be lost."""
        return self.drop.value if self.is_never_worse else self.drop.high


def point_value(evidence: Evidence) -> float:
    """Returns the metric on all images, each counted once."""
    return float(evidence.values(np.ones((1, evidence.images), np.int64))[0])


def accuracy_of(evidence: Evidence, reference: Evidence, resamples: int) -> Accuracy:
    """Returns the figures of `evidence`; both must come from the same images in the same order."""
    if evidence.images != reference.images:
        raise ValueError(f"{evidence.images} images against {reference.images}: the figures cannot be paired")
    weights = resample_weights(evidence.images, resamples)
    found, expected = evidence.values(weights), reference.values(weights)
    value, drop = _intervals(evidence, reference, found, expected)
    return Accuracy(
        evidence.metric,
        _counted(evidence),
        value,
        drop,
        tuple(None if np.isnan(figure) else float(figure) for figure in evidence.per_class()),
        worst_class(evidence, reference, weights),
        is_never_worse=drop.value <= 0.0 and bool((expected - found <= 0.0).all()),
    )


def _counted(evidence: Evidence) -> int:
    """Returns the number of images that the metric rests on, at least 1."""
    return max(1, int(evidence.counted.sum())) if isinstance(evidence, PictureEvidence) else evidence.images


def slice_accuracy(evidence: Evidence, reference: Evidence, rows: NDArray[np.int64], resamples: int) -> Accuracy:
    """Returns the figures of some of the images; the interval of the drop is that of a class with as many."""
    evidence, reference = evidence.part(rows), reference.part(rows)
    accuracy = accuracy_of(evidence, reference, resamples)
    if isinstance(evidence, ClassifyEvidence) and isinstance(reference, ClassifyEvidence):
        return replace(accuracy, drop=_rate_drop(evidence, reference))
    return accuracy


def _intervals(
    evidence: Evidence, reference: Evidence, found: NDArray[np.float64], expected: NDArray[np.float64]
) -> tuple[BootstrapInterval, BootstrapInterval]:
    """Returns the intervals of the metric and its drop: exact ones for rates, resampled ones for most others."""
    images = _counted(evidence)
    if isinstance(evidence, ClassifyEvidence) and isinstance(reference, ClassifyEvidence):
        right, wanted = evidence.correct, reference.correct
        lost, gained = int((wanted & ~right).sum()), int((right & ~wanted).sum())
        return rate_interval(int(right.sum()), images), rate_drop_interval(lost, gained, images)
    value = point_value(evidence)
    drop = metric_drop_interval(point_value(reference) - value, expected - found, images)
    if isinstance(evidence, PictureEvidence):
        return mean_interval(evidence.scores[evidence.counted]), drop
    return metric_interval(value, found, images), drop


def worst_class(evidence: Evidence, reference: Evidence, weights: Weights) -> ClassDrop | None:
    """Returns the class that may have lost most, because a mean over many classes hides one loss."""
    images = reference.class_images()
    drops = reference.per_class() - evidence.per_class()
    resampled = reference.class_values(weights) - evidence.class_values(weights)
    figures: list[ClassDrop] = []
    for index, drop in enumerate(drops):
        # without the resamples that drew no image of the class
        known = resampled[:, index][~np.isnan(resampled[:, index])]
        if known.size and not np.isnan(drop):
            interval = _class_interval(evidence, reference, index, float(drop), known, max(1, int(images[index])))
            is_never_worse = drop <= 0.0 and bool((known <= 0.0).all())
            figures.append(ClassDrop(index, interval, is_never_worse=is_never_worse))
    return max(figures, key=lambda figure: (figure.judged, figure.drop.high), default=None)


def _class_interval(
    evidence: Evidence, reference: Evidence, class_id: int, drop: float, resampled: NDArray[np.float64], images: int
) -> BootstrapInterval:
    """Returns the interval of one class's drop, never without width; `images` show the class."""
    if isinstance(evidence, ClassifyEvidence) and isinstance(reference, ClassifyEvidence):
        rows = np.flatnonzero(reference.class_ids == class_id)
        return _rate_drop(evidence.part(rows), reference.part(rows))
    return metric_drop_interval(drop, resampled, images)


def _rate_drop(evidence: ClassifyEvidence, reference: ClassifyEvidence) -> BootstrapInterval:
    """Returns the interval of a drop on few images, those of a class or of a slice."""
    lost = int((reference.correct & ~evidence.correct).sum())
    gained = int((evidence.correct & ~reference.correct).sum())
    return class_drop_interval(lost, gained, evidence.images)


def mean_of_classes(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of the classes that occur (resamples, classes); 0 when none does."""
    occurs = ~np.isnan(figures)
    result: NDArray[np.float64] = np.where(occurs, figures, 0.0).sum(1) / np.maximum(occurs.sum(1), 1)
    return result


def _ratio(parts: NDArray[np.number], totals: NDArray[np.number]) -> NDArray[np.float64]:
    """Returns elementwise parts / totals, NaN where the total is zero."""
    result = np.full(totals.shape, np.nan)
    np.divide(parts, totals, out=result, where=totals > 0)
    return result
