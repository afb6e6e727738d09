"""Compares answers with pure functions on output arrays: scores and boxes by relative error, class ids by equality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.qualification.qualify_report import HostileFigure
from saccade.models.contract.run_lengths import RunLengths
from saccade.models.contract.specs import Task, TensorSpec
from saccade.models.metrics.metrics import scores_by_label

Arrays = Sequence[NDArray[Any]]
_CONFIDENT = 0.05  # below this score, rounding decides the order of detections
_TIE = 1e-4  # relative difference of two scores within which rounding decides which of them is the better
_COUNTS = 3  # position of the tensor that has no rows
_OTHER_CLASS = 1e6  # distance in pixels that makes a row of another class the last choice


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two answers to the same images are apart."""

    relative_l2: float | None  # of the worst float tensor; None when something is not finite
    id_disagreement: float  # share of differing elements in the worst integer tensor


def answer_difference(found: Arrays, expected: Arrays, task: Task, *, multi_label: bool = False) -> Difference:
    """Compares two answers of a task; the order of tiny, nearly equal scores is rounding and does not count."""
    match task:
        case Task.CLASSIFY if multi_label:
            return difference([scores_by_label(found)], [scores_by_label(expected)])
        case Task.CLASSIFY:
            is_confident = expected[0] >= _CONFIDENT
            ids = np.where(_are_tied(found, expected), expected[1], found[1])
            return difference([found[0], ids[is_confident]], [expected[0], expected[1][is_confident]])
        case Task.DETECT | Task.INSTANCES:
            left, right = paired_detections(found, expected)
            # Prototypes belong to the whole image, and are compared as they are.
            left, right = [*left, *found[5:]], [*right, *expected[5:]]
            # All scores are compared by rank too, because an answer without a confident row must not compare as equal.
            return difference([*left, found[1]], [*right, expected[1]])
        case Task.SEGMENT:
            return difference(found, expected)
        case Task.IMAGE:
            return difference(found, expected)
        case Task.EMBED:
            # Of vectors of length 1, d²/2 is what the cosine lacks to 1; the worst picture counts.
            gaps = [difference(pair[:1], pair[1:]).relative_l2 for pair in zip(found[0], expected[0], strict=True)]
            known = [gap for gap in gaps if gap is not None]
            return Difference(max(known, default=0.0) if len(known) == len(gaps) else None, 0.0)


def _are_tied(found: Arrays, expected: Arrays) -> NDArray[np.bool_]:
    """Tells which ids found (n, k) have nearly the score that is expected at their rank, as a ReLU's zeros have.

    A class that is not expected among the first has at most the last score of them.
    """
    is_listed = found[1][:, :, None] == expected[1][:, None, :]  # (n, k found, k expected)
    listed = np.where(is_listed, expected[0][:, None, :], 0.0).sum(2)
    scores = np.where(is_listed.any(2), listed, expected[0][:, -1:])
    return np.asarray(np.abs(scores - expected[0]) <= _TIE * expected[0])


def paired_detections(found: Arrays, expected: Arrays) -> tuple[Arrays, Arrays]:
    """Returns boxes, scores, class ids and mask numbers of all confident expected rows, each beside the nearest found
    row.

    A full answer is cut somewhere: rows that score as its last one but for rounding may be others elsewhere, and are
    left out.
    """
    of_rows = [tensor for tensor in range(min(len(expected), 5)) if tensor != _COUNTS]
    pairs: tuple[list[list[NDArray[Any]]], ...] = tuple([[] for _ in of_rows] for _ in range(2))
    for image in range(len(expected[0])):
        scores, count = expected[1][image], int(expected[_COUNTS][image])
        least = scores[-1] * (1.0 + _TIE) if count == len(scores) else 0.0
        rows = np.flatnonzero((scores >= _CONFIDENT) & (scores > least))
        gaps = np.abs(found[0][image][None] - expected[0][image][rows][:, None]).sum(2)
        gaps += np.where(found[2][image][None] != expected[2][image][rows][:, None], _OTHER_CLASS, 0.0)
        nearest = gaps.argmin(1)
        for place, tensor in enumerate(of_rows):
            pairs[0][place].append(found[tensor][image][nearest])
            pairs[1][place].append(expected[tensor][image][rows])
    return [np.concatenate(rows) for rows in pairs[0]], [np.concatenate(rows) for rows in pairs[1]]


def difference(found: Arrays, expected: Arrays) -> Difference:
    """Compares arrays; both arguments hold one array per output tensor, with rows in the same order."""
    worst, disagreement = 0.0, 0.0
    is_finite = True
    for left, right in zip(found, expected, strict=True):
        if left.dtype.kind == "f":
            is_finite = is_finite and bool(np.isfinite(left).all() and np.isfinite(right).all())
            worst = max(worst, relative_l2(left, right))
        elif right.dtype.kind == "S":
            disagreement = max(disagreement, _mask_disagreement(left, right))
        elif right.size:
            disagreement = max(disagreement, float((left != right).mean()))
    return Difference(worst if is_finite else None, disagreement)


def _mask_disagreement(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Returns the share of objects' pixels that differ, in masks (rows,) as `instance_answers.py` keeps them.

    A score near the threshold decides whether a mask is kept, so rows that one side did not keep are left out.
    """
    shared, joined = 0, 0
    for pair in zip(found.tolist(), expected.tolist(), strict=True):
        first, second = (RunLengths.read(text) for text in pair)
        if first.area and second.area:
            common = first.common_area(second)
            shared, joined = shared + common, joined + first.area + second.area - common
    return 1.0 - shared / joined if joined else 0.0


def relative_l2(found: NDArray[Any], expected: NDArray[Any], least_length: float = 1e-30) -> float:
    """Returns |found - expected| / max(|expected|, least_length); infinite when anything is not finite."""
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return float("inf")
    gap = float(np.linalg.norm((found.astype(np.float64) - expected).ravel()))
    return gap / max(float(np.linalg.norm(expected.astype(np.float64).ravel())), least_length, 1e-30)


def hostile_images(height: int, width: int) -> dict[str, NDArray[np.uint8]]:
    """Returns inputs that no camera makes, each (1, height, width, 3)."""
    rng = np.random.default_rng(0)
    shape = (1, height, width, 3)
    checks = np.indices((height, width)).sum(0) % 2 * 255
    return {
        "all 0": np.zeros(shape, np.uint8),
        "all 255": np.full(shape, 255, np.uint8),
        "noise": rng.integers(0, 256, shape, np.uint8),
        "checkerboard": np.broadcast_to(checks[None, :, :, None], shape).astype(np.uint8),
    }


def hostile_figure(name: str, answer: Arrays, specs: Sequence[TensorSpec], classes: int) -> HostileFigure:
    """Checks that every tensor is finite and every score, class id, mask value and count lies in its range."""
    is_finite = all(bool(np.isfinite(array).all()) for array in answer)
    is_in_range = all(_is_in_range(spec, array, classes) for spec, array in zip(specs, answer, strict=True))
    return HostileFigure(name=name, is_finite=is_finite, is_in_range=is_in_range)


def _is_in_range(spec: TensorSpec, array: NDArray[Any], classes: int) -> bool:
    match spec.name:
        case "scores" | "masks":
            return bool(((array >= 0.0) & (array <= 1.0 + 1e-6)).all())
        case "class_ids" | "mask":
            return bool(((array >= 0) & (array < classes)).all())
        case "counts":
            return bool((array >= 0).all())
        case "image":
            return bool(((array >= 0.0) & (array <= 1.0)).all())
        case "embedding":
            return bool((np.abs(array) <= 1.0 + 1e-3).all())
        case _:
            return True  # boxes may reach beyond the picture, because serving clips them
