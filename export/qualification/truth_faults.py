"""Finds truth that does not belong to its pictures: labels that stand for one another, masks or boxes that fit the
answers only once they are turned or mirrored, and pictures that fit once they are moved. Each fault is one sentence
that says what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
from saccade.export.qualification.shifted_pictures import shifted_answers
from saccade.models.contract.preprocessing import mask_to_source
from saccade.models.contract.specs import Task, TaskSpec
from saccade.service.vision.image_decoder import orientation_of

FloatArray = NDArray[np.float64]
MovedEvidence = Callable[[Mapping[int, "Turn"]], Evidence]  # of some pictures, whose truth is moved

_MOSTLY = 0.5  # share of a label's pictures, objects or pixels
_ENOUGH_PICTURES = 10  # fewer may be answered wrongly by chance, unless nearly all of them are
_SOME_PICTURES, _NEARLY_ALL = 5, 0.9
_SAME_OBJECT_IOU = 0.5
_MOST_TRIED = 64  # pictures
_FEW_PICTURES = 3
_BETTER = 0.1  # of mAP or mIoU; in another position, right truth loses
_MUCH_BETTER = 0.3  # of one picture's
# Of the pictures that are tried, and twice as many as fit any further position: poor networks' mistakes fit all alike.
_SHARE_TURNED = 0.15


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
# By EXIF orientation: what brings the stored picture's truth to the picture as it is shown, and the other way round.
_OVERLOOKED: Mapping[int, Turn] = {
    2: Turn(across=True, down=False, exchanges=False),
    3: Turn(across=True, down=True, exchanges=False),
    4: Turn(across=False, down=True, exchanges=False),
    5: Turn(across=False, down=False, exchanges=True),
    6: Turn(across=False, down=True, exchanges=True),
    7: Turn(across=True, down=True, exchanges=True),
    8: Turn(across=True, down=False, exchanges=True),
}
_HEEDED: Mapping[int, Turn] = {**_OVERLOOKED, 6: _OVERLOOKED[8], 8: _OVERLOOKED[6]}
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
    if task.task is Task.EMBED:
        return  # labels only say which pictures belong together
    if task.task is Task.IMAGE:
        yield from shifted_answers(answers[0], split, task)
        return
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
    is_enough = (images >= _ENOUGH_PICTURES) | ((images >= _SOME_PICTURES) & (most >= _NEARLY_ALL))
    is_lost = (most >= _MOSTLY) & (own < most / 2) & is_enough
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
    from scipy.stats import rankdata  # takes a second, and only this rule needs it

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
    """Tries pictures with an EXIF orientation as if it had been overlooked, and then some in every other position."""
    what = "masks" if task.task is Task.SEGMENT else "boxes"
    evidence = (_mask_evidence if what == "masks" else _box_evidence)(answers, split, task, classes)
    orientations = [orientation_of(sample.encoded) for sample in split.samples]
    turns = _OVERLOOKED if not split.limits.ignores_exif else _HEEDED
    exif = {row: turns[each] for row, each in enumerate(orientations) if each in turns}
    some = _spread([row for row, turn in exif.items() if _can_turn(what, split, row, turn)])
    if len(some) >= _FEW_PICTURES:
        as_is = point_value(evidence({row: _AS_IT_IS for row in some}))
        turned = point_value(evidence({row: exif[row] for row in some}))
        if turned >= as_is + _BETTER:
            shown, other = ("as it is shown", "as it is stored")[:: -1 if split.limits.ignores_exif else 1]
            yield (
                f"the true {what} of pictures with an EXIF orientation lie on the picture {other}: {len(some)} of them "
                f"agree with the answers by {turned:.2f} {other}, and by {as_is:.2f} {shown}. Save their {what} for "
                f"the picture {shown}, or look at `exif` in `preprocess`"
            )
            return
    yield from _moved_truth(evidence, split, what)


def _moved_truth(evidence: MovedEvidence, split: ImageSplit, what: str) -> Iterator[str]:
    """Yields the position that fits all pictures much better, or a share of them that is no chance."""
    some = _spread(range(len(split.samples)))
    figures: list[tuple[float, float, int, int, str]] = []
    for how, turn in _TURNS.items():
        tried = [row for row in some if _can_turn(what, split, row, turn)]
        if len(tried) < _FEW_PICTURES:
            continue
        as_is, turned = (evidence(dict.fromkeys(tried, each)) for each in (_AS_IT_IS, turn))
        alone = np.eye(len(tried), dtype=np.int64)  # each picture by itself
        fitting = int((turned.values(alone) >= as_is.values(alone) + _MUCH_BETTER).sum())
        figures.append((point_value(turned) - point_value(as_is), point_value(turned), fitting, len(tried), how))
    if not figures:
        return
    better, value, _, count, how = max(figures)
    if better >= _BETTER:
        yield (
            f"the true {what} are {how}: {count} pictures agree with the answers by {value:.2f} once that is undone, "
            f"and by {value - better:.2f} as they are. Save {what} of the upright picture, as it is shown"
        )
        return
    (fitting, count, how), (usual, _, _), *_ = sorted((each[2:] for each in figures), reverse=True)
    if fitting >= max(_ENOUGH_PICTURES, _SHARE_TURNED * count, 2 * usual):
        yield (
            f"the true {what} of {fitting} of {count} pictures are {how}: they agree with the answers much better once "
            f"that is undone. Save {what} of the upright picture, as it is shown"
        )


def _mask_evidence(answers: Answer, split: ImageSplit, task: TaskSpec, classes: int) -> MovedEvidence:
    def evidence(turns: Mapping[int, Turn]) -> Evidence:
        confusions = []
        for row, turn in turns.items():
            sample = split.samples[row]
            assert isinstance(sample, SegmentSample)
            found = mask_to_source(answers[0][row], split.geometries[row], task.background_id or 0)
            confusions.append(segment_confusion(found, turn.of_mask(sample.mask), classes))
        return SegmentEvidence(np.stack(confusions))

    return evidence


def _box_evidence(answers: Answer, split: ImageSplit, task: TaskSpec, classes: int) -> MovedEvidence:
    found, truth = detect_scenes(answers[:4], split)

    def evidence(turns: Mapping[int, Turn]) -> Evidence:
        moved = []
        for row, turn in turns.items():
            place = split.geometries[row]
            size = (place.source_width, place.source_height)
            moved.append(replace(truth[row], boxes=turn.of_boxes(truth[row].boxes, size), masks=None))
        return detect_evidence([found[row] for row in turns], moved, classes)

    return evidence


def _can_turn(what: str, split: ImageSplit, row: int, turn: Turn) -> bool:
    """Tells whether the moved truth has the picture's size, as boxes in shares of its sides always have."""
    place = split.geometries[row]
    return what == "boxes" or not turn.exchanges or place.source_width == place.source_height


def _spread(rows: Sequence[int]) -> list[int]:
    """Returns at most so many rows as are tried, from all over the split."""
    return list(rows[:: -(-len(rows) // _MOST_TRIED) or 1])
