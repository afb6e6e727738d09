"""Measures detectors at the score threshold that requests get by default, from the evidence of the metric."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from saccade.export.qualification.detection_evidence import DetectEvidence
from saccade.export.qualification.evidence import Accuracy, Evidence, accuracy_of
from saccade.export.qualification.metric_figures import metric_figure
from saccade.models.contract.manifest import OperatingPoint

_AT_IOU_50 = 0  # column of DetectEvidence.matched
_CANDIDATES = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True, slots=True)
class DetectionShares:
    """Precision and recall over all detections and true objects of a split, whatever their class."""

    precision: float
    recall: float
    f1: float


def at_threshold(evidence: Evidence, score_threshold: float) -> DetectEvidence | None:
    """Returns the detections that reach the threshold, with the matches they had; None for other tasks.

    A detection's match depends only on better ones, so nothing has to be matched again.
    """
    if not isinstance(evidence, DetectEvidence):
        return None
    kept = evidence.scores >= score_threshold
    return replace(
        evidence,
        scores=evidence.scores[kept],
        image_ids=evidence.image_ids[kept],
        class_ids=evidence.class_ids[kept],
        matched=evidence.matched[kept],
    )


def shares_of(evidence: DetectEvidence) -> DetectionShares:
    """Returns precision and recall; without detections or without objects they are 0."""
    hits = int(evidence.matched[:, _AT_IOU_50].sum())
    found, true = len(evidence.scores), int(evidence.truth_counts.sum())
    return DetectionShares(hits / max(1, found), hits / max(1, true), 2.0 * hits / max(1, found + true))


def operating_accuracy(
    evidence: Evidence, reference: Evidence, score_threshold: float, resamples: int
) -> tuple[OperatingPoint, Accuracy] | None:
    """Returns a detector's figures at its threshold, paired with the reference's; None for other tasks."""
    found, expected = at_threshold(evidence, score_threshold), at_threshold(reference, score_threshold)
    if found is None or expected is None:
        return None
    accuracy = accuracy_of(found, expected, resamples)
    shares = shares_of(found)
    point = OperatingPoint(
        score_threshold=score_threshold,
        metric=metric_figure(accuracy),
        precision=shares.precision,
        recall=shares.recall,
        f1=shares.f1,
    )
    return point, accuracy


def best_threshold(evidence: DetectEvidence) -> tuple[float, DetectionShares]:
    """Returns the threshold among 0.05, 0.10 … 0.95 with the best F1; of equal ones the middle one."""
    shares = [shares_of(narrowed) for each in _CANDIDATES if (narrowed := at_threshold(evidence, each)) is not None]
    best = np.flatnonzero(np.isclose([each.f1 for each in shares], max(each.f1 for each in shares)))
    chosen = int(best[len(best) // 2])
    return _CANDIDATES[chosen], shares[chosen]
