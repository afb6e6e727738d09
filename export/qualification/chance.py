"""Computes what an answer reaches that ignores the picture, which a useful network must exceed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saccade.export.data.image_split import ImageSplit
from saccade.export.qualification.accuracy import Answer, evidence_of
from saccade.export.qualification.evidence import ClassifyEvidence, Evidence, SegmentEvidence, point_value
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.produced_pictures import unchanged
from saccade.models.contract.specs import Task, TaskSpec

_OTHERS_PICTURES = "giving each picture the answer to the next one"


@dataclass(frozen=True, slots=True)
class Chance:
    """The metric of the best guess, and a description of that guess."""

    value: float
    guess: str


def chance_of(answers: Answer, evidence: Evidence, split: ImageSplit, task: TaskSpec, labels: Sequence[str]) -> Chance:
    """Returns the better of a constant answer and the network's own answers assigned to other pictures.

    The second guess knows everything about the data except the picture: a detector of what always lies in the middle,
    or a segmenter of the one place where something is, does no better.
    """
    if isinstance(evidence, ClassifyEvidence):
        return _majority(evidence, labels, "finding" if task.task is Task.EMBED else "answering")
    if task.task is Task.IMAGE and (given := unchanged(split, task)) is not None:
        larger = f"enlarging each picture {task.scale} times with a bicubic filter"
        return Chance(point_value(given), larger if task.scale > 1 else "giving each picture back as it was sent")
    shuffled = [np.roll(array, 1, axis=0) for array in answers]
    other = point_value(evidence_of(shuffled, split, task, len(labels)))
    constant = Chance(0.0, "no boxes")
    if isinstance(evidence, SegmentEvidence):
        constant = _constant_mask(evidence, labels)
    elif isinstance(evidence, LabelEvidence):
        constant = _constant_scores(evidence)
    return max(constant, Chance(other, _OTHERS_PICTURES), key=lambda each: each.value)


def _majority(evidence: ClassifyEvidence, labels: Sequence[str], doing: str) -> Chance:
    counts = evidence.class_images()
    most = int(counts.argmax())
    return Chance(float(counts[most] / counts.sum()), f"always {doing} {labels[most]!r}")


def _constant_scores(evidence: LabelEvidence) -> Chance:
    """Gives every picture the same scores: a label's average precision is then the share of pictures that show it."""
    same = LabelEvidence(np.zeros(evidence.scores.shape), evidence.truth)
    return Chance(point_value(same), "the same scores for every picture")


def _constant_mask(evidence: SegmentEvidence, labels: Sequence[str]) -> Chance:
    """Answers the most frequent class for every pixel: its IoU is its share, and that of all other classes is zero."""
    pixels = evidence.confusions.sum((0, 2))  # (classes,) pixels by true class
    most, present = int(pixels.argmax()), int((pixels > 0).sum())
    value = float(pixels[most] / (pixels.sum() * present)) if present else 0.0
    return Chance(value, f"calling every pixel {labels[most]!r}")
