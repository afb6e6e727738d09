"""Compares what two versions answer to one image, in the pixels and classes of the first, at each one's threshold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry, boxes_to_source, mask_to_source
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.image_agreement import first_classes, image_agreement
from saccade.models.metrics.kept_answers import kept_image
from saccade.models.metrics.picture_quality import near_levels
from saccade.service.vision.produced import whole_answer

Outputs = Sequence[NDArray[Any]]
_MOST_NAMED = 5  # classes
_UNSEEN = -1.0  # a score below every threshold


class Answer(NamedTuple):
    """One image's rows of `manifest.answer`, and where the image lies in that version's input."""

    outputs: Outputs
    place: Geometry
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Comparison:
    agreement: float  # 0 to 1
    figures: Mapping[str, float]
    stable: str  # what each one said, in a few words
    candidate: str


def compared(stable: Answer, candidate: Answer) -> Comparison:
    """Both versions have the same task, and their places belong to the same picture."""
    task, labels = stable.manifest.task, stable.manifest.labels
    if task.task is Task.EMBED:
        return _compared_vectors(stable.outputs[0], candidate.outputs[0])
    if task.task is Task.IMAGE:
        return _compared_pictures(stable, candidate)
    names = [*labels, *(label for label in candidate.manifest.labels if label not in labels)]
    first, second = _in_picture(stable, names, task), _in_picture(candidate, names, task)
    found = image_agreement(second, first, task, len(names))
    return Comparison(found.value, found.figures, _said(first, task, names), _said(second, task, names))


def _compared_vectors(stable: NDArray[Any], candidate: NDArray[Any]) -> Comparison:
    """The cosine, 0 where it is negative; vectors of different sizes are of different spaces, and agree in nothing."""
    said = [f"{len(vector)} numbers" for vector in (stable, candidate)]
    if len(stable) != len(candidate):
        return Comparison(0.0, {"cosine": 0.0}, *said)
    cosine = min(1.0, max(0.0, float(np.dot(stable.astype(np.float64), candidate.astype(np.float64)))))
    return Comparison(cosine, {"cosine": cosine}, *said)


def _compared_pictures(stable: Answer, candidate: Answer) -> Comparison:
    """The share of numbers that are nearly equal; pictures of another kind or scale agree in nothing."""
    pictures = [
        each.outputs[0]
        if each.manifest.preprocess.fit == "tile"
        else whole_answer(each.outputs, each.place, each.manifest.task)
        for each in (stable, candidate)
    ]
    said = [f"a picture of {picture.shape[1]}x{picture.shape[0]}" for picture in pictures]
    if len({(each.manifest.task.picture, each.manifest.task.scale) for each in (stable, candidate)}) > 1:
        return Comparison(0.0, {"levels": 0.0}, *said)
    height, width = (min(sides) for sides in zip(*(picture.shape[:2] for picture in pictures), strict=True))
    first, second = (picture[:height, :width] for picture in pictures)  # tiles of two sizes share a corner
    share = near_levels(second, first, stable.manifest.task)
    return Comparison(share, {"levels": share}, *said)


def _in_picture(answer: Answer, names: Sequence[str], task: TaskSpec) -> list[NDArray[Any]]:
    """The answer with boxes and masks in the picture's pixels, class ids by `names`, and scores for `task`."""
    own, place = answer.manifest.task, answer.place
    outputs = [np.asarray(output) for output in answer.outputs]
    ids = np.array([names.index(label) for label in answer.manifest.labels])
    if own.task is Task.SEGMENT:
        return [ids[mask_to_source(outputs[0], place)]]
    if own.task is Task.CLASSIFY:
        scores, class_ids = outputs
        return [_seen(scores, own, task) if own.multi_label else scores, ids[class_ids]]
    if own.masks is not None:
        size = (answer.manifest.preprocess.width, answer.manifest.preprocess.height)
        is_drawn = (np.arange(len(outputs[1])) < outputs[3]) & (outputs[1] >= own.score_threshold)
        outputs = kept_image(outputs, own.masks, size, place, is_drawn)
    boxes, scores, class_ids, count, *masks = outputs
    return [boxes_to_source(boxes, place), _seen(scores, own, task), ids[class_ids], np.asarray(count), *masks]


def _seen(scores: NDArray[Any], own: TaskSpec, task: TaskSpec) -> NDArray[Any]:
    """Moves scores so that those reach the threshold of `task` which reach the version's own."""
    if own.score_threshold == task.score_threshold:
        return scores
    return np.where(scores >= own.score_threshold, np.maximum(scores, task.score_threshold), _UNSEEN)


def _said(answer: Outputs, task: TaskSpec, names: Sequence[str]) -> str:
    ids = first_classes(answer, task)
    if task.task is Task.CLASSIFY and not task.multi_label:
        words = [f"{names[number]} {float(answer[0][0]):.3f}" for number in ids]
    elif task.task.has_boxes:
        seen = answer[2][: int(answer[3][()])][answer[1][: int(answer[3][()])] >= task.score_threshold]
        counts = Counter(seen.tolist())
        words = [f"{counts[number]} {names[number]}" for number in ids]
    else:
        words = [names[number] for number in ids]
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return ", ".join(words[:_MOST_NAMED]) + more or "nothing"
