"""mAP@[.50:.95] from per-image match records, equal to COCOeval's figure for any selection of images; without torch.

COCOeval matches detections to truth one image at a time, and only then pools them. The records keep the matches, so
that a bootstrap can pool any (repeated) selection of images without matching again.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DETECTIONS = 100  # per image, as in COCO's AP
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_POINTS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """One image's answer or truth; truth ignores scores."""

    boxes: NDArray[np.float32]  # (n, 4) x1 y1 x2 y2
    class_ids: NDArray[np.int64]  # (n,)
    scores: NDArray[np.float32]  # (n,)
    is_crowd: NDArray[np.bool_] | None = None  # (n,) of the truth; None: no crowds


@dataclass(frozen=True, slots=True, eq=False)
class MatchRecords:
    """Matches of all images, one block of columns per class, images in order, scores descending within an image."""

    images: int
    truth_counts: NDArray[np.int64]  # (classes, images), without crowds
    scores: tuple[NDArray[np.float64], ...]  # per class (d,)
    matched: tuple[NDArray[np.bool_], ...]  # per class (10 IoU thresholds, d)
    ignored: tuple[NDArray[np.bool_], ...]  # the same shape; answers that found only a crowd
    starts: NDArray[np.int64]  # (classes, images + 1): columns of image i are starts[c, i]:starts[c, i + 1]


def match_records(answers: Sequence[Detections], truths: Sequence[Detections], classes: int) -> MatchRecords:
    """Matches by pycocotools (area: all). Raises ValueError when the lists differ in length."""
    evaluation = _coco_evaluation(answers, truths, classes)
    images = len(truths)
    counts = np.zeros((classes, images), np.int64)
    starts = np.zeros((classes, images + 1), np.int64)
    scores: list[NDArray[np.float64]] = []
    matched: list[NDArray[np.bool_]] = []
    ignored: list[NDArray[np.bool_]] = []
    for class_id in range(classes):
        entries = [_image_entry(evaluation, class_id, image) for image in range(images)]
        counts[class_id] = [0 if entry is None else int((entry["gtIgnore"] == 0).sum()) for entry in entries]
        lengths = [0 if entry is None else len(entry["dtScores"]) for entry in entries]
        starts[class_id, 1:] = np.cumsum(lengths)
        kept = [entry for entry in entries if entry is not None]
        scores.append(np.concatenate([np.asarray(entry["dtScores"], np.float64) for entry in kept] or [np.empty(0)]))
        empty = np.empty((len(IOU_THRESHOLDS), 0), bool)
        matched.append(np.concatenate([entry["dtMatches"] > 0 for entry in kept] or [empty], axis=1))
        ignored.append(np.concatenate([entry["dtIgnore"].astype(bool) for entry in kept] or [empty], axis=1))
    return MatchRecords(images, counts, tuple(scores), tuple(matched), tuple(ignored), starts)


def average_precision(records: MatchRecords, image_indices: NDArray[np.integer] | None = None) -> float:
    """mAP@[.50:.95] of the selected images (all, when None), which may repeat: mean over classes present in truth."""
    selection = np.arange(records.images) if image_indices is None else np.asarray(image_indices)
    per_class = [
        _class_precision(records, class_id, selection)
        for class_id in range(len(records.scores))
        if records.truth_counts[class_id, selection].sum() > 0
    ]
    return float(np.mean(per_class)) if per_class else 0.0


def _class_precision(records: MatchRecords, class_id: int, selection: NDArray[np.integer]) -> float:
    """Mean over thresholds of the 101-point interpolated precision, as COCOeval.accumulate computes it."""
    truths = int(records.truth_counts[class_id, selection].sum())
    columns = _columns(records.starts[class_id], selection)
    if not len(columns):
        return 0.0
    # Stable, so that ties keep image order, as COCOeval's mergesort does.
    order = columns[np.argsort(-records.scores[class_id][columns], kind="stable")]
    total = 0.0
    for hit, is_ignored in zip(records.matched[class_id][:, order], records.ignored[class_id][:, order], strict=True):
        hits = np.cumsum(hit[~is_ignored], dtype=np.float64)
        precision = hits / (np.arange(1, len(hits) + 1) + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(hits / truths, _RECALL_POINTS, side="left")
        total += float(precision[reached[reached < len(hits)]].sum())
    return total / (len(_RECALL_POINTS) * len(IOU_THRESHOLDS))


def _columns(starts: NDArray[np.int64], selection: NDArray[np.integer]) -> NDArray[np.int64]:
    """Columns of the selected images, concatenated in selection order."""
    first, length = starts[selection], starts[selection + 1] - starts[selection]
    before = np.cumsum(length) - length
    columns: NDArray[np.int64] = np.repeat(first - before, length) + np.arange(int(length.sum()))
    return columns


def _coco_evaluation(answers: Sequence[Detections], truths: Sequence[Detections], classes: int) -> Any:
    """A COCOeval after evaluate(); pycocotools has no types. Category and image ids are index + 1."""
    from pycocotools.coco import COCO  # imports matplotlib when it is there, so only when a figure is wanted
    from pycocotools.cocoeval import COCOeval

    truth_rows = [row for image, truth in enumerate(truths) for row in _coco_rows(truth, image)]
    answer_rows = [row for image, answer in enumerate(answers) for row in _coco_rows(answer, image)]
    if len(answers) != len(truths):
        raise ValueError(f"{len(answers)} answers for {len(truths)} images; pass one (possibly empty) answer per image")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        ground = _coco_index(COCO(), truth_rows, len(truths), classes)
        found = _coco_index(COCO(), answer_rows, len(truths), classes)
        evaluation = COCOeval(ground, found, "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [[0.0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
    return evaluation


def _coco_rows(detections: Detections, image: int) -> list[dict[str, Any]]:
    rows = []
    crowds = np.zeros(len(detections.scores), bool) if detections.is_crowd is None else detections.is_crowd
    values = (detections.boxes, detections.class_ids, detections.scores, crowds)
    for box, class_id, score, is_crowd in zip(*values, strict=True):
        x1, y1, x2, y2 = (float(edge) for edge in box)
        row = {"image_id": image + 1, "category_id": int(class_id) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        rows.append({**row, "area": (x2 - x1) * (y2 - y1), "iscrowd": int(is_crowd), "score": float(score)})
    return rows


def _coco_index(coco: Any, rows: list[dict[str, Any]], images: int, classes: int) -> Any:
    annotations = [{**row, "id": number} for number, row in enumerate(rows, start=1)]
    coco.dataset = {
        "images": [{"id": image + 1} for image in range(images)],
        "categories": [{"id": class_id + 1} for class_id in range(classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _image_entry(evaluation: Any, class_id: int, image: int) -> dict[str, Any] | None:
    """COCOeval's record of one class in one image; None when it has neither truth nor answers."""
    entry: dict[str, Any] | None = evaluation.evalImgs[class_id * len(evaluation.params.imgIds) + image]
    return entry
