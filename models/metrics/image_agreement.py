"""Measures how far two versions agree on one image: one figure from 0 to 1, and what it consists of.

The figure is the share of the answer that a client would call the same: 1 or 0 for the first class, F1 of labels or of
boxes at the served threshold, mean IoU of masks. Objects with masks have the lower one of F1 and mask IoU. Vectors
have their cosine, or 0 where it is negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.agreement import answer_agreement
from saccade.models.metrics.metrics import confusion_matrix, mean_iou, scores_by_label

Arrays = Sequence[NDArray[Any]]  # one image's answer, one array per output tensor; masks of objects as kept answers


@dataclass(frozen=True, slots=True)
class ImageAgreement:
    value: float
    figures: Mapping[str, float]  # shares, and `score_shift`: how far the score of the first answer's best class moved


def image_agreement(found: Arrays, expected: Arrays, task: TaskSpec, classes: int) -> ImageAgreement:
    """Compares two answers to one image, in the same pixels and with the same class ids."""
    if task.task is Task.SEGMENT:
        mask_iou = mean_iou(confusion_matrix(found[0], expected[0], classes))
        return ImageAgreement(mask_iou, {"mask_iou": mask_iou, "pixels": float((found[0] == expected[0]).mean())})
    first, second = ([each[np.newaxis] for each in side] for side in (found, expected))
    shares = {str(name): share for name, share in answer_agreement(first, second, task, 0).items()}
    # Overlaps of matched boxes say how far they moved; that they exist is what F1 says.
    value = min(share for name, share in shares.items() if name != "box_iou")
    return ImageAgreement(value, {**shares, **_score_shift(found, expected, task)})


def _score_shift(found: Arrays, expected: Arrays, task: TaskSpec) -> dict[str, float]:
    if task.task is not Task.CLASSIFY or len(expected[1]) == 0:
        return {}
    if task.multi_label:
        first, second = (scores_by_label([each[np.newaxis] for each in side]) for side in (found, expected))
        return {"score_shift": float(np.abs(first - second).max())}
    places = np.flatnonzero(found[1] == expected[1][0])
    score = float(found[0][places[0]]) if len(places) else 0.0
    return {"score_shift": abs(score - float(expected[0][0]))}


def first_classes(answer: Arrays, task: TaskSpec) -> list[int]:
    """The class ids that a client gets of one image, best first and each once; those of masks by area."""
    match task.task:
        case Task.CLASSIFY if task.multi_label:
            ids = answer[1][answer[0] >= task.score_threshold]
        case Task.CLASSIFY:
            ids = answer[1][:1]
        case Task.DETECT | Task.INSTANCES:
            rows = np.flatnonzero(answer[1][: int(answer[3][()])] >= task.score_threshold)
            ids = answer[2][rows[np.argsort(-answer[1][rows], kind="stable")]]
        case Task.SEGMENT:
            found, areas = np.unique(answer[0], return_counts=True)
            ids = found[np.argsort(-areas, kind="stable")]
            ids = ids[ids != task.background_id] if task.background_id is not None else ids
        case Task.EMBED | Task.IMAGE:
            ids = np.zeros(0, np.int64)  # a vector or a picture names no class
    return list(dict.fromkeys(int(each) for each in ids))
