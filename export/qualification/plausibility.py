"""Decides whether answers can be true at all; each fault is one sentence that says what to write in the recipe.

The recipe states which form of `export/network.py` a network has. A network whose boxes are relative, or whose scores
already went through a softmax, runs as well as any other and answers nonsense. Its answers to the user's own pictures
show such a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.network import RawForm
from saccade.export.qualification.detection_evidence import box_iou
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from saccade.models.metrics.metrics import scores_by_label

Arrays = Sequence[NDArray[Any]]
FloatArray = NDArray[np.float64]

RAW_PICTURES = 16  # pictures whose raw outputs are checked; a wrong form shows on each of them
_ROUNDING = 1e-3  # rounding of sums of probabilities
_SAME = 1e-4  # differences of scores, and of boxes in hundredths of a pixel, that rounding explains
_RELATIVE_PIXELS = 2.0  # no box in pixels lies within so few pixels, and all relative boxes do
_FLOOR = 0.01  # share of the scores' span within which the smallest score of every picture lies after a softmax
_MOST_TURNED = 0.05  # share of boxes whose right edge lies left of their left one, or bottom above top
_MOST_OUTSIDE = 0.2  # share of boxes whose centre lies outside the picture
_SAME_OBJECT_IOU = 0.8
_MOST_CUT = 0.5  # share of numbers beyond black and white
# share of boxes that overlap a better one of their class so much; for networks without suppression it is about 0.2
_MOST_REPEATED = 0.4


def raw_faults(form: RawForm, raw: Arrays) -> Iterator[str]:
    """Yields faults of the network's raw outputs for some pictures, before any answer head."""
    if form == "dense_logits" and not np.isfinite(raw[0]).all():
        yield (
            "pixel scores are not finite, which the choice of the largest one hides: the network overflows or divides "
            "by zero. Look at `normalisation`, or `value_range`, in the recipe"
        )
    if form == "logits" and raw[0].shape[1] > 1 and np.isfinite(raw[0]).all():
        yield from _softmax_twice(raw[0].astype(np.float64))
    elif form in ("boxes", "candidates", "prototype_masks", "box_masks"):
        yield from _scores_in_range(raw[1], "sigmoid")


def answer_faults(answer: Arrays, task: TaskSpec, preprocess: PreprocessSpec, labels: int) -> Iterator[str]:
    """Yields faults of the answers to all pictures of a split; arrays are named as in `output_tensors`."""
    lost = _not_finite(answer)
    if lost.size:
        yield (
            f"answers to {lost.size} of {len(answer[0])} pictures are not finite (the first is number {lost[0]}): the "
            "network overflows or divides by zero there. Look at that picture, and at `normalisation` in the recipe"
        )
        return
    match task.task:
        case Task.CLASSIFY:
            yield from _scores_in_range(answer[0], "sigmoid" if task.multi_label else "logits")
            yield from _label_faults(answer, task) if task.multi_label else _class_faults(answer[0], answer[1], labels)
        case Task.DETECT | Task.INSTANCES:
            yield from _scores_in_range(answer[1], "sigmoid")
            yield from _detection_faults(answer[:4], task, preprocess)
        case Task.SEGMENT:
            if len(answer[0]) > 1 and (answer[0] == answer[0][:1]).all():
                yield _constant("mask")
        case Task.EMBED:
            yield from _vector_faults(answer[0])
        case Task.IMAGE:
            yield from _picture_faults(answer[0], task)


def _not_finite(answer: Arrays) -> NDArray[np.int64]:
    """Returns the numbers of the pictures with an answer that is not finite."""
    bad = np.zeros(len(answer[0]), np.bool_)
    for array in answer:
        if array.dtype.kind == "f":
            bad |= ~np.isfinite(array.reshape(len(array), -1)).all(1)
    found: NDArray[np.int64] = np.flatnonzero(bad)
    return found


def _softmax_twice(logits: FloatArray) -> Iterator[str]:
    sums, span = logits.sum(1), np.ptp(logits)
    # logits may have one sum as well, when the last layer is centred: then it is 0, or their smallest ones differ
    has_floor = logits.min() >= 0.0 or (logits.shape[1] > 2 and np.ptp(logits.min(1)) < _FLOOR * span)
    is_constant = len(logits) > 1 and bool(np.ptp(sums) < _ROUNDING * span and np.abs(sums).max() > _FLOOR * span)
    is_scaled = is_constant and has_floor and abs(sums.mean() - 1.0) > _ROUNDING
    if is_scaled or logits.min() < 0.0 or logits.max() > 1.0 + _ROUNDING:
        if is_scaled:
            yield (
                f"class scores of every picture sum to {sums.mean():.4g} before the softmax that saccade adds: the "
                "network has one already, in another unit such as percent. Take factor and offset out of the network, "
                "and write `outputs: {scores: probabilities}`"
            )
        return
    if np.abs(sums - 1.0).max() < _ROUNDING:
        yield (
            "class scores sum to 1 before the softmax that saccade adds: the network has one already, and a second one "
            "makes all scores nearly equal. Write `outputs: {scores: probabilities}`"
        )
    elif logits.max() > 0.5:
        yield (
            "class scores all lie within 0..1 before the softmax that saccade adds, which makes all of them nearly "
            "equal. If the network has a sigmoid already, write `outputs: {scores: probabilities}`; if they are "
            "similarities, put the scale that they were trained with into the network"
        )


def _scores_in_range(scores: NDArray[Any], word: str) -> Iterator[str]:
    low, high = (float(scores.min()), float(scores.max())) if scores.size else (0.0, 0.0)
    if low < 0.0 or high > 1.0 + _ROUNDING:
        yield (
            f"scores reach from {low:.3g} to {high:.3g} instead of lying within 0..1: they are no probabilities yet. "
            f"Write `outputs: {{scores: {word}}}`"
        )


def _class_faults(scores: NDArray[Any], class_ids: NDArray[Any], labels: int) -> Iterator[str]:
    if labels == 1 and (scores == 1.0).all():
        yield (
            "a softmax over one class is always 1, so every picture is of that class. "
            "Write `outputs: {scores: sigmoid}`"
        )
    elif len(scores) > 1 and (class_ids[:, 0] == class_ids[0, 0]).all() and np.ptp(scores[:, 0]) < _SAME:
        yield _constant("class and score")


def _vector_faults(vectors: NDArray[Any]) -> Iterator[str]:
    zero = np.flatnonzero(~vectors.any(1))
    if zero.size:
        yield (
            f"vectors of {zero.size} of {len(vectors)} pictures are zeros (the first is number {zero[0]}), which have "
            "no direction: a server refuses such pictures. Look at that picture, and at `normalisation` in the recipe"
        )
    elif len(vectors) > 1 and np.ptp(vectors, axis=0).max() < _SAME:
        yield _constant("vector")


def _picture_faults(pictures: NDArray[Any], task: TaskSpec) -> Iterator[str]:
    if len(pictures) > 1 and np.ptp(pictures, axis=0).max() < _SAME:
        yield _constant("picture")
    elif task.picture != "depth" and ((pictures == 0.0) | (pictures == 1.0)).mean() > _MOST_CUT:
        yield (
            f"more than {_MOST_CUT:.0%} of all pixels are black or white after the cut to 0..1: the network's output "
            "has another range. Write `task: {values: [black, white]}`, such as [0, 255] or [-1, 1]"
        )


def _label_faults(answer: Arrays, task: TaskSpec) -> Iterator[str]:
    scores = scores_by_label(answer)
    if (scores < task.score_threshold).all():
        yield _nothing_shown("label", scores, task)
    elif len(scores) > 1 and np.ptp(scores, axis=0).max() < _SAME:
        yield _constant("scores")
    elif scores.shape[1] > 1 and (scores >= task.score_threshold).all():
        yield (
            f"every label of all {len(scores)} pictures reaches the score threshold {task.score_threshold:g} (the "
            f"lowest score is {scores.min():.3g}), so that users see them all. Write a higher `score_threshold` into "
            "`task`; where the scores are logits, write `outputs: {scores: sigmoid}`"
        )


def _nothing_shown(what: str, scores: NDArray[Any], task: TaskSpec) -> str:
    best = float(scores.max()) if scores.size else 0.0
    return (
        f"no {what} of {len(scores)} pictures reaches the score threshold {task.score_threshold:g} (the best is at "
        f"{best:.3g}), so that users see none. Write a lower `score_threshold` into `task`"
    )


def _detection_faults(answer: Arrays, task: TaskSpec, preprocess: PreprocessSpec) -> Iterator[str]:
    boxes, scores, _, counts = answer
    shown = (np.arange(scores.shape[1]) < counts[:, None]) & (scores >= task.score_threshold)
    if not shown.any():
        yield _nothing_shown("detection", scores, task)
        return
    found = boxes[shown].astype(np.float64)
    is_relative = np.abs(found).max() <= _RELATIVE_PIXELS
    turned = float(((found[:, 2] < found[:, 0]) | (found[:, 3] < found[:, 1])).mean())
    if is_relative:
        yield (
            f"all {len(found)} boxes lie within two pixels: they are relative to the picture and were read as pixels. "
            "Write `outputs: {units: relative}`"
        )
    if turned > _MOST_TURNED:
        yield (
            f"{turned:.0%} of {len(found)} boxes end before they begin: they are centre and size and were read as "
            "corners. Write `outputs: {boxes: cxcywh}`"
        )
    if is_relative or turned > _MOST_TURNED:
        return
    outside = _share_outside(found, preprocess)
    if outside > _MOST_OUTSIDE:
        yield (
            f"{outside:.0%} of {len(found)} boxes lie outside the network's input of {preprocess.width}x"
            f"{preprocess.height}: they are no corners in its pixels. Write their `boxes` and `units` into `outputs`"
        )
    repeated = _share_repeated(answer, shown)
    if repeated > _MOST_REPEATED:
        yield (
            f"{repeated:.0%} of {len(found)} boxes overlap a better one of the same class by more than "
            f"{_SAME_OBJECT_IOU:g}: suppression is missing. Write `outputs: {{suppression: {{iou: 0.6}}}}`"
        )
    if len(boxes) > 1 and _is_constant(answer):
        yield _constant("boxes")


def _share_outside(boxes: FloatArray, preprocess: PreprocessSpec) -> float:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    is_inside = (centre >= 0.0).all(1) & (centre <= (preprocess.width, preprocess.height)).all(1)
    return 1.0 - float(is_inside.mean())


def _share_repeated(answer: Arrays, shown: NDArray[np.bool_]) -> float:
    repeated = 0
    for boxes, scores, class_ids, rows in zip(*answer[:3], shown, strict=True):
        order = np.flatnonzero(rows)
        order = order[np.argsort(-scores[order], kind="stable")]
        overlaps = box_iou(boxes[order].astype(np.float64), boxes[order].astype(np.float64))
        overlaps[class_ids[order][:, None] != class_ids[order][None, :]] = 0.0
        repeated += int((np.tril(overlaps, -1).max(axis=1, initial=0.0) > _SAME_OBJECT_IOU).sum())
    return repeated / max(1, int(shown.sum()))


def _is_constant(answer: Arrays) -> bool:
    boxes, scores, class_ids, counts = answer
    return bool(
        (counts == counts[0]).all()
        and (class_ids == class_ids[:1]).all()
        and np.abs(scores - scores[:1]).max() < _SAME
        and np.abs(boxes - boxes[:1]).max() < 100.0 * _SAME
    )


def _constant(what: str) -> str:
    return (
        f"every picture gets the same {what}: the network does not see the pictures. Look at `preprocess` and "
        "`normalisation`, or `value_range`, in the recipe, and at whether the weights belong to this network"
    )
