"""Measures detectors and multi-label classifiers at the score threshold that requests get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from saccade.export.qualification.detection_evidence import DetectEvidence
from saccade.export.qualification.evidence import Accuracy, Evidence, accuracy_of
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.metric_figures import metric_figure
from saccade.models.contract.manifest import OperatingPoint

_AT_IOU_50 = 0  # column of DetectEvidence.matched
Cut = DetectEvidence | LabelEvidence  # evidence of answers that a score threshold cuts
_MUCH_WORSE = 0.5  # share of the best F1
_CANDIDATES = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True, slots=True)
class OperatingShares:
    """Shares of all detections and true objects, or of all answered and true labels, of a split."""

    precision: float
    recall: float
    f1: float


def at_threshold(evidence: Evidence, score_threshold: float) -> Cut | None:
    """The detections or labels that reach the threshold, with the matches they had; None for other tasks.

    A detection's match depends on better ones only, so nothing has to be matched again.
    """
    if isinstance(evidence, LabelEvidence):
        return evidence.from_score(score_threshold)
    if not isinstance(evidence, DetectEvidence):
        return None
    return evidence.chosen(evidence.scores >= score_threshold)


def shares_of(evidence: Cut) -> OperatingShares:
    """Precision of no detections, and recall of no objects, are 0. Detections of crowds count nowhere."""
    if isinstance(evidence, LabelEvidence):
        answered = np.isfinite(evidence.scores)
        hits, found, true = (int(each.sum()) for each in (answered & evidence.truth, answered, evidence.truth))
    else:
        counted = evidence.counted[:, _AT_IOU_50]
        hits = int(evidence.matched[counted, _AT_IOU_50].sum())
        found, true = int(counted.sum()), int(evidence.truth_counts.sum())
    return OperatingShares(hits / max(1, found), hits / max(1, true), 2.0 * hits / max(1, found + true))


def operating_accuracy(
    evidence: Evidence, reference: Evidence, score_threshold: float, resamples: int
) -> tuple[OperatingPoint, Accuracy] | None:
    """The figures at the threshold, paired with the reference's at the same one; None for other tasks."""
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


def threshold_faults(evidence: Evidence, score_threshold: float) -> Iterator[str]:
    """Yields a sentence where another threshold would give users answers that are far better."""
    cut = at_threshold(evidence, score_threshold)
    if cut is None or not isinstance(evidence, DetectEvidence | LabelEvidence):
        return
    shares, (other, best) = shares_of(cut), best_threshold(evidence)
    if shares.f1 < _MUCH_WORSE * best.f1:
        yield (
            f"at the score threshold {score_threshold:g} F1 is {shares.f1:.2f} (precision {shares.precision:.2f}, "
            f"recall {shares.recall:.2f}), and {best.f1:.2f} at {other:g}: users who name no threshold get the first. "
            f"Write `score_threshold: {other:g}` into `task`"
        )


def best_threshold(evidence: Cut) -> tuple[float, OperatingShares]:
    """Of 0.05, 0.10 … 0.95 the threshold with the best F1; of equals the one in their middle."""
    shares = [shares_of(narrowed) for each in _CANDIDATES if (narrowed := at_threshold(evidence, each)) is not None]
    best = np.flatnonzero(np.isclose([each.f1 for each in shares], max(each.f1 for each in shares)))
    chosen = int(best[len(best) // 2])
    return _CANDIDATES[chosen], shares[chosen]
