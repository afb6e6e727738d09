"""Computes confusion matrices and precision-recall curves from the metric's evidence, small enough to read."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.detection_evidence import IOU_THRESHOLDS, RECALL_POINTS, DetectEvidence
from saccade.export.qualification.evidence import ClassifyEvidence, Evidence, SegmentEvidence
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.picture_figures import PictureEvidence
from saccade.models.contract.specs import Frozen

MOST_CLASSES = 24  # rows of a matrix, or curves of a plot, that a reader can still tell apart
MOST_GROUPS = 1000  # labels of an embedder's pictures; of a group each, a matrix would take gigabytes
PLOTTED_IOUS = (0.5, 0.75)
_MOST_PAIRS = 20

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class ConfusedPair(Frozen):
    """How often one class was taken for another."""

    truth: int
    found: int
    count: int
    share: float  # share of everything that is truly `truth`


class Confusion(Frozen):
    """A matrix with truth as rows and answers as columns; only the classes with the most mistakes are kept."""

    unit: Literal["images", "pixels"]
    class_ids: tuple[int, ...]  # classes of the rows and columns
    counts: tuple[tuple[int, ...], ...]
    pairs: tuple[ConfusedPair, ...]  # pairs of all classes, the most frequent mistakes first
    recall: tuple[float | None, ...]  # recall of all classes; None for a class that does not occur
    precision: tuple[float | None, ...]  # None for a class that is never answered


class PrecisionRecall(Frozen):
    """Precision at recall 0.00, 0.01, ... 1.00, as average precision sums it up; 0 beyond the last hit."""

    iou: float | None  # None: of labels, which have no place
    mean: tuple[float, ...]  # mean over all classes that occur
    class_ids: tuple[int, ...]  # classes with a curve; if there are too many, those with the lowest average precision
    by_class: tuple[tuple[float, ...], ...]
    average_precision: tuple[float | None, ...]  # for all classes; None for a class that does not occur


class Curves(Frozen):
    """Where a variant is right and where not: a matrix where one class is right, curves where any number is."""

    confusion: Confusion | None = None
    precision_recall: tuple[PrecisionRecall, ...] = ()


def curves_of(evidence: Evidence) -> Curves:
    """Returns the curves of one variant on all images."""
    match evidence:
        case ClassifyEvidence() if evidence.metric == "recall_at_1" and evidence.classes > MOST_GROUPS:
            return Curves()
        case ClassifyEvidence():
            return Curves(confusion=confusion_of(evidence.confusion(), "images"))
        case PictureEvidence():
            return Curves()
        case SegmentEvidence():
            return Curves(confusion=confusion_of(evidence.confusions.sum(0), "pixels"))
        case DetectEvidence():
            return Curves(precision_recall=tuple(precision_recall(evidence, iou) for iou in PLOTTED_IOUS))
        case LabelEvidence():
            return Curves(precision_recall=(_label_precision_recall(evidence),))
    raise TypeError(f"no curves are known for {type(evidence).__name__}")


def confusion_of(counts: IntArray, unit: Literal["images", "pixels"]) -> Confusion:
    """Reduces a whole matrix (classes, classes) with truth as rows."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    involved = mistakes.sum(0) + mistakes.sum(1)
    shown = np.sort(np.argsort(-involved, kind="stable")[:MOST_CLASSES])
    totals = counts.sum(1)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), len(counts)) for place in order]
    return Confusion(
        unit=unit,
        class_ids=tuple(shown.tolist()),
        counts=tuple(tuple(row) for row in counts[np.ix_(shown, shown)].tolist()),
        pairs=tuple(
            ConfusedPair(
                truth=truth,
                found=found,
                count=int(mistakes[truth, found]),
                share=_rounded(mistakes[truth, found] / totals[truth]),
            )
            for truth, found in places
            if mistakes[truth, found]
        ),
        recall=_shares(np.diagonal(counts), totals),
        precision=_shares(np.diagonal(counts), counts.sum(0)),
    )


def precision_recall(evidence: DetectEvidence, iou: float) -> PrecisionRecall:
    """Returns curves at one of COCO's overlap thresholds."""
    threshold = int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
    truths, counted = evidence.truth_counts.sum(0), evidence.counted[:, threshold]
    hits = [evidence.matched[counted & (evidence.class_ids == each), threshold] for each in range(len(truths))]
    return _summed_up(iou, hits, truths)


def _label_precision_recall(evidence: LabelEvidence) -> PrecisionRecall:
    order = np.argsort(-evidence.scores, axis=0, kind="stable")
    return _summed_up(None, list(np.take_along_axis(evidence.truth, order, 0).T), evidence.truth.sum(0))


def _summed_up(iou: float | None, hits: list[NDArray[np.bool_]], truths: IntArray) -> PrecisionRecall:
    """hits: by class, sorted by falling score; truths: how often each class occurs."""
    curves = np.stack([_envelope(each, int(count)) for each, count in zip(hits, truths, strict=True)])
    occurs = truths > 0
    areas = curves.mean(1)
    worst = np.argsort(np.where(occurs, areas, np.inf), kind="stable")[: min(MOST_CLASSES, int(occurs.sum()))]
    shown = np.sort(worst)
    return PrecisionRecall(
        iou=iou,
        mean=_row(curves[occurs].mean(0)) if occurs.any() else (0.0,) * len(RECALL_POINTS),
        class_ids=tuple(shown.tolist()),
        by_class=tuple(_row(curves[class_id]) for class_id in shown),
        average_precision=tuple(
            _rounded(area) if occur else None for area, occur in zip(areas, occurs.tolist(), strict=True)
        ),
    )


def _envelope(hits: NDArray[np.bool_], truths: int) -> FloatArray:
    """Returns the best precision (101,) at each recall or beyond; `hits` are sorted by falling score."""
    result = np.zeros(len(RECALL_POINTS))
    if truths == 0 or not hits.any():
        return result
    positives = np.cumsum(hits)
    precision = np.maximum.accumulate((positives / np.arange(1, len(hits) + 1))[::-1])[::-1]
    reached = np.searchsorted(positives / truths, RECALL_POINTS)
    within = reached < len(hits)
    result[within] = precision[reached[within]]
    return result


def _shares(parts: IntArray, totals: IntArray) -> tuple[float | None, ...]:
    return tuple(
        _rounded(part / total) if total else None for part, total in zip(parts.tolist(), totals.tolist(), strict=True)
    )


def _row(values: FloatArray) -> tuple[float, ...]:
    return tuple(_rounded(value) for value in values)


def _rounded(value: float) -> float:
    """Rounds to four digits: a plot shows three, and a thousand classes have many figures."""
    return round(float(value), 4)
