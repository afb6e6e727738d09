"""Finds truth that does not belong to its pictures: labels that stand for one another, and masks or boxes that fit the
answers only once they are turned or mirrored. Each fault is one sentence that says what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import SegmentSample
from saccade.export.qualification.accuracy import Answer, detect_scenes, segment_confusion
from saccade.export.qualification.detection_evidence import (
    DetectEvidence,
    SceneDetections,
    box_iou,
    detect_evidence,
)
from saccade.export.qualification.evidence import ClassifyEvidence, Evidence, SegmentEvidence, point_value
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.models.contract.preprocessing import mask_to_source
from saccade.models.contract.specs import Task, TaskSpec
from saccade.service.vision.image_decoder import JPEG_MAGIC
from saccade.service.vision.jpeg_segments import jpeg_segments

FloatArray = NDArray[np.float64]
Score = Callable[[Sequence[int], "Turn"], float]  # metric of some pictures whose truth is moved

_MOSTLY = 0.5  # share of a label's pictures, objects or pixels
_ENOUGH_PICTURES = 10  # fewer may be answered wrongly by chance
_SAME_OBJECT_IOU = 0.5
_MOST_TRIED = 64  # pictures that are tried in every position
_FEW_PICTURES = 3
_BETTER = 0.1  # of mAP or mIoU; in another position, right truth loses


class Turn(NamedTuple):
    """A position of a picture: mirrored left to right, mirrored top to bottom, then rows and columns exchanged."""

    across: bool
    down: bool
    exchanges: bool

    def of_mask(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Moves a mask (height, width)."""
        moved = mask[:: -1 if self.down else 1, :: -1 if self.across else 1]
        return moved.T if self.exchanges else moved

    def of_boxes(self, boxes: FloatArray, size: tuple[int, int]) -> FloatArray:
        """Moves boxes (n, 4), corners in pixels of a picture of this width and height, within the same picture."""
        sides = np.array([*size, *size], np.float64)
        corners = (boxes / sides).reshape(-1, 2, 2)  # (n, corner, x and y)
        is_flipped = np.array([self.across, self.down])
        corners = np.where(is_flipped, 1 - corners, corners)
        corners = corners[:, :, ::-1] if self.exchanges else corners
        return np.concatenate([corners.min(1), corners.max(1)], axis=1) * sides


_AS_IT_IS = Turn(across=False, down=False, exchanges=False)
_TURNS: Mapping[str, Turn] = {
    "turned by half": Turn(across=True, down=True, exchanges=False),
    "mirrored left to right": Turn(across=True, down=False, exchanges=False),
    "mirrored top to bottom": Turn(across=False, down=True, exchanges=False),
    "written with rows and columns exchanged": Turn(across=False, down=False, exchanges=True),
    "turned by a quarter to the right": Turn(across=True, down=False, exchanges=True),
    "turned by a quarter to the left": Turn(across=False, down=True, exchanges=True),
    "mirrored and turned by a quarter": Turn(across=True, down=True, exchanges=True),
}


def truth_faults(
    answers: Answer, evidence: Evidence, split: ImageSplit, task: TaskSpec, labels: Sequence[str]
) -> Iterator[str]:
    """Yields faults of the truth of a split, judged by the reference's answers to all its pictures."""
    shares = _answered_shares(answers, evidence, split, task.score_threshold, len(labels))
    yield from exchanged_labels(shares, evidence.class_images(), labels)
    if task.task is not Task.CLASSIFY:
        yield from _turned_truth(answers, split, task, len(labels))


def exchanged_labels(shares: FloatArray, images: NDArray[np.int64], labels: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each circle of labels that are mostly answered with the next label.

    `shares` (classes, classes) tells how much of each true label (rows) is answered with each label, and `images`
    (classes,) how many pictures show it. A label that the network never finds is mostly answered with one that it does
    find, which makes no circle.
    """
    answered = shares.argmax(1)
    most, own = shares.max(1), np.diagonal(shares)
    is_lost = (most >= _MOSTLY) & (own < most / 2) & (images >= _ENOUGH_PICTURES)
    told: set[int] = set()
    for first in np.flatnonzero(is_lost).tolist():
        circle = [first]
        while is_lost[circle[-1]] and answered[circle[-1]] not in circle:
            circle.append(int(answered[circle[-1]]))
        if not is_lost[circle[-1]] or answered[circle[-1]] != first or first in told:
            continue
        told |= set(circle)
        steps = ", ".join(f"{labels[each]!r} as {labels[answered[each]]!r} ({most[each]:.0%})" for each in circle)
        yield f"labels are exchanged: answered is {steps}. Correct the order of `labels` in the recipe, or the data"


def _answered_shares(
    answers: Answer, evidence: Evidence, split: ImageSplit, threshold: float, classes: int
) -> FloatArray:
    """Returns how much of each label (rows) is answered with each label, (classes, classes)."""
    if isinstance(evidence, LabelEvidence):
        return rank_shares(evidence)
    if isinstance(evidence, DetectEvidence):
        counts = object_confusion(*detect_scenes(answers[:4], split), threshold, classes)
        totals = evidence.truth_counts.sum(0)
    else:
        assert isinstance(evidence, ClassifyEvidence | SegmentEvidence)
        counts = evidence.confusion() if isinstance(evidence, ClassifyEvidence) else evidence.confusions.sum(0)
        totals = counts.sum(1)
    return np.asarray(counts / np.maximum(totals, 1)[:, None], np.float64)


def rank_shares(evidence: LabelEvidence) -> FloatArray:
    """Returns 2 AUC - 1 of each label's truth (rows) by each label's scores: 0 for chance, 1 for a perfect order.

    The area under the ROC curve is the Mann-Whitney statistic, so all pairs of labels need one product of ranks.
    """
    truth = evidence.truth.astype(np.float64)
    ranks = rankdata(evidence.scores, axis=0)
    shown, hidden = truth.sum(0)[:, None], (1 - truth).sum(0)[:, None]
    area = (truth.T @ ranks - shown * (shown + 1) / 2) / np.maximum(shown * hidden, 1)
    return np.asarray(np.where(shown * hidden > 0, np.maximum(2 * area - 1, 0), 0), np.float64)


def object_confusion(
    found: Sequence[SceneDetections], truth: Sequence[SceneDetections], threshold: float, classes: int
) -> NDArray[np.int64]:
    """Counts true objects (rows) by the class of the best detection where they are; missed ones are left out."""
    counts = np.zeros((classes, classes), np.int64)
    for seen, true in zip(found, truth, strict=True):
        shown = seen.scores >= threshold
        if not shown.any() or not len(true.boxes):
            continue
        overlaps = box_iou(true.boxes, seen.boxes[shown]) >= _SAME_OBJECT_IOU
        best = np.where(overlaps, seen.scores[shown], -1.0).argmax(1)
        is_object = overlaps.any(1) if true.is_crowd is None else overlaps.any(1) & ~true.is_crowd
        np.add.at(counts, (true.class_ids[is_object], seen.class_ids[shown][best][is_object]), 1)
    return counts


def _turned_truth(answers: Answer, split: ImageSplit, task: TaskSpec, classes: int) -> Iterator[str]:
    """Tries some pictures, and some of those that are turned by their EXIF orientation, in every other position."""
    what = "masks" if task.task is Task.SEGMENT else "boxes"
    score = (_mask_score if task.task is Task.SEGMENT else _box_score)(answers, split, task, classes)
    for which, rows in (("", range(len(split.samples))), ("with an EXIF orientation ", _exif_turned(split))):
        some = _spread(rows)
        figures: list[tuple[float, float, int, str]] = []
        for how, turn in _TURNS.items():
            tried = [row for row in some if what == "boxes" or not turn.exchanges or _is_square(split, row)]
            if len(tried) >= _FEW_PICTURES:
                figures.append((score(tried, turn), score(tried, _AS_IT_IS), len(tried), how))
        turned, as_is, count, how = max(figures, default=(0.0, 0.0, 0, ""))
        if turned >= as_is + _BETTER:
            yield (
                f"the true {what} are {how}: {count} pictures {which}agree with the answers by {turned:.2f} once that "
                f"is undone, and by {as_is:.2f} as they are. Save {what} of the upright picture, as it is shown"
            )
            return


def _mask_score(answers: Answer, split: ImageSplit, task: TaskSpec, classes: int) -> Score:
    def score(rows: Sequence[int], turn: Turn) -> float:
        confusions = []
        for row in rows:
            sample = split.samples[row]
            assert isinstance(sample, SegmentSample)
            found = mask_to_source(answers[0][row], split.geometries[row], task.background_id or 0)
            confusions.append(segment_confusion(found, turn.of_mask(sample.mask), classes))
        return point_value(SegmentEvidence(np.stack(confusions)))

    return score


def _box_score(answers: Answer, split: ImageSplit, task: TaskSpec, classes: int) -> Score:
    found, truth = detect_scenes(answers[:4], split)

    def score(rows: Sequence[int], turn: Turn) -> float:
        places = [split.geometries[row] for row in rows]
        sizes = [(place.source_width, place.source_height) for place in places]
        moved = [
            replace(truth[row], boxes=turn.of_boxes(truth[row].boxes, size))
            for row, size in zip(rows, sizes, strict=True)
        ]
        return point_value(detect_evidence([found[row] for row in rows], moved, classes))

    return score


def _is_square(split: ImageSplit, row: int) -> bool:
    return split.geometries[row].source_width == split.geometries[row].source_height


def _spread(rows: Sequence[int]) -> list[int]:
    """Returns at most so many rows as are tried, from all over the split."""
    return list(rows[:: -(-len(rows) // _MOST_TRIED) or 1])


def _exif_turned(split: ImageSplit) -> list[int]:
    """Returns the pictures that cameras stored in another position than they are shown in."""
    if split.limits.ignores_exif:
        return []
    encoded = [sample.encoded for sample in split.samples]
    return [
        row for row, each in enumerate(encoded) if each.startswith(JPEG_MAGIC) and jpeg_segments(each).orientation > 1
    ]
