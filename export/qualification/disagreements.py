"""Finds the images on which two answers differ most, counting what a client would notice.

With default parameters, a client notices another first class, a box that the other answer does not have, or pixels of
another class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.detection_evidence import box_iou
from saccade.models.contract.specs import Frozen, Task, TaskSpec
from saccade.models.metrics.metrics import scores_by_label
from saccade.models.metrics.picture_quality import near_levels
from saccade.models.metrics.retrieval import nearest_rows

Answer = Sequence[NDArray[Any]]  # one array per output tensor
FloatArray = NDArray[np.float64]

SAME_BOX_IOU = 0.5
# share of a mask; smaller differences are rims of single pixels that nobody notices in a picture
_VISIBLE_PIXELS = 0.001


class Example(Frozen):
    """One image, drawn with both answers."""

    file: str  # JPEG beside the report: reference left, variant right
    image: int  # its position in the split
    amount: float  # amount of disagreement, in the unit that `Disagreements.measure` names
    truth: str
    reference: str
    variant: str


class Disagreements(Frozen):
    """How often a variant's answer differs from the reference's, and the images where it differs most."""

    images: int
    differing: int
    measure: str  # what `amount` counts
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedBoxes:
    """The rows of one image's answer that reach the score threshold."""

    boxes: FloatArray  # (n, 4), in the pixels of the answer
    scores: FloatArray  # (n,)
    class_ids: NDArray[np.int64]  # (n,)


def measure_of(task: TaskSpec) -> str:
    match task.task:
        case Task.CLASSIFY if task.multi_label:
            return "change of score, summed over labels that only one of both answers"
        case Task.CLASSIFY:
            return "lead of each answer's first class over the other's, summed; 0 where both name the same class"
        case Task.DETECT | Task.INSTANCES:
            return f"scores of boxes that the other answer lacks (same class, IoU ≥ {SAME_BOX_IOU}), summed"
        case Task.SEGMENT:
            return f"share of pixels with another class, counted from {_VISIBLE_PIXELS:.1%}"
        case Task.IMAGE:
            return "share of numbers that differ by more than two 255ths of their range"
        case Task.EMBED:
            return "1 minus the cosine of both vectors, where another picture is the nearest"


def amounts_of(reference: Answer, found: Answer, task: TaskSpec) -> FloatArray:
    """Returns how much each image's answers differ, (images,); 0 where a client would see no difference."""
    match task.task:
        case Task.CLASSIFY if task.multi_label:
            first, second = scores_by_label(reference), scores_by_label(found)
            is_other = (first >= task.score_threshold) != (second >= task.score_threshold)
            summed: FloatArray = np.where(is_other, np.maximum(np.abs(first - second), 1e-9), 0.0).sum(1)
            return summed
        case Task.CLASSIFY:
            return _class_amounts(reference, found)
        case Task.DETECT | Task.INSTANCES:
            rows = range(len(reference[3]))
            pairs = [
                (boxes_of(reference, row, task.score_threshold), boxes_of(found, row, task.score_threshold))
                for row in rows
            ]
            return np.array([box_amount(first, second) for first, second in pairs], np.float64)
        case Task.SEGMENT:
            shares: FloatArray = np.array([np.mean(a != b) for a, b in zip(reference[0], found[0], strict=True)])
            return np.where(shares >= _VISIBLE_PIXELS, shares, 0.0)
        case Task.EMBED:
            return _vector_amounts(reference[0], found[0])
        case Task.IMAGE:
            near = [near_levels(*each, task) for each in zip(found[0], reference[0], strict=True)]
            return 1.0 - np.array(near, np.float64)


def most_different(amounts: FloatArray, count: int) -> list[int]:
    """Returns the indices of the images with the largest amounts above 0; equal amounts keep their order."""
    order = np.argsort(-amounts, kind="stable")[:count]
    return [int(index) for index in order if amounts[index] > 0]


def boxes_of(answer: Answer, row: int, threshold: float) -> ServedBoxes:
    """Returns what a client gets of one image at this threshold, in model pixels."""
    boxes, scores, class_ids, counts = answer[:4]
    kept = np.flatnonzero(scores[row, : int(counts[row])] >= threshold)
    return ServedBoxes(
        boxes[row, kept].astype(np.float64), scores[row, kept].astype(np.float64), class_ids[row, kept].astype(np.int64)
    )


def box_amount(first: ServedBoxes, second: ServedBoxes) -> float:
    """Sums the scores of all boxes without a partner; pairs are made greedily, by falling overlap."""
    is_paired = paired(first, second)
    return float(first.scores[~is_paired[0]].sum() + second.scores[~is_paired[1]].sum())


def paired(first: ServedBoxes, second: ServedBoxes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tells which boxes of each side have a partner of the same class on the other; no box has two partners."""
    overlaps = box_iou(first.boxes, second.boxes)
    overlaps[first.class_ids[:, None] != second.class_ids[None, :]] = 0.0
    left, right = np.zeros(len(first.scores), np.bool_), np.zeros(len(second.scores), np.bool_)
    for place in np.argsort(-overlaps, axis=None, kind="stable"):
        row, column = divmod(int(place), overlaps.shape[1])
        if overlaps[row, column] < SAME_BOX_IOU:
            break
        if not left[row] and not right[column]:
            left[row] = right[column] = True
    return left, right


def _vector_amounts(reference: NDArray[Any], found: NDArray[Any]) -> FloatArray:
    if len(reference) < 2:
        return np.zeros(len(reference))
    is_other = (nearest_rows(reference, 1) != nearest_rows(found, 1))[:, 0]
    gaps = 1.0 - np.einsum("nd,nd->n", reference, found, dtype=np.float64)
    return np.where(is_other, np.maximum(gaps, 1e-9), 0.0)


def _class_amounts(reference: Answer, found: Answer) -> FloatArray:
    amounts = np.zeros(len(reference[0]))
    for row in np.flatnonzero(reference[1][:, 0] != found[1][:, 0]).tolist():
        first, second = int(reference[1][row, 0]), int(found[1][row, 0])
        lead = _score(reference, row, first) - _score(reference, row, second)
        # The amount is above 0, because two classes with equal scores are still different answers.
        amounts[row] = max(lead + _score(found, row, second) - _score(found, row, first), 1e-9)
    return amounts


def _score(answer: Answer, row: int, class_id: int) -> float:
    """Returns a class's score; 0 when the answer does not list the class."""
    places = np.flatnonzero(answer[1][row] == class_id)
    return float(answer[0][row, places[0]]) if len(places) else 0.0
