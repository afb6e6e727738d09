"""Computes COCO's mAP@[.50:.95] (101 recall points) from per-image results, for any weighting of images.

The method is that of Lin et al., Microsoft COCO, arXiv 1405.0312, and pycocotools' COCOeval, whose matching rule this
repeats: by falling score, each detection takes the free truth box of its class with the largest overlap, if that
overlap reaches the threshold. A detection that finds only a crowd (a box around many objects) does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from saccade.export.qualification.evidence import Weights, mean_of_classes
from saccade.models.contract.manifest import MetricName
from saccade.models.contract.run_lengths import RunLengths
from saccade.models.contract.run_lengths import overlaps as mask_overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MOST_PER_CLASS = 100  # as in COCO's figure, only so many best detections of a class in an image count

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SceneDetections:
    """The boxes of one image, found or true; scores of the truth are ignored."""

    boxes: FloatArray  # (n, 4) x1 y1 x2 y2, source pixels
    class_ids: IntArray  # (n,)
    scores: FloatArray  # (n,)
    is_crowd: NDArray[np.bool_] | None = None  # (n,) for the truth; None: no crowds
    masks: Sequence[RunLengths] | None = None  # one per object: they are matched by their masks


@dataclass(frozen=True, slots=True, eq=False)
class DetectEvidence:
    """All detections of a split, by falling score, with what they matched."""

    scores: FloatArray  # (d,)
    image_ids: IntArray  # (d,)
    class_ids: IntArray  # (d,)
    matched: NDArray[np.bool_]  # (d, thresholds)
    counted: NDArray[np.bool_]  # (d, thresholds); False where only a crowd was found
    truth_counts: IntArray  # (images, classes), without crowds
    metric: MetricName = "map"

    @property
    def images(self) -> int:
        return len(self.truth_counts)

    def values(self, weights: Weights) -> FloatArray:
        return mean_of_classes(self.class_values(weights))

    def per_class(self) -> FloatArray:
        figures: FloatArray = self.class_values(np.ones((1, self.images), np.int64))[0]
        return figures

    def class_images(self) -> IntArray:
        return np.asarray((self.truth_counts > 0).sum(0))

    def class_values(self, weights: Weights) -> FloatArray:
        """Returns average precision over thresholds (resamples, classes); NaN for a class without truth."""
        classes = self.truth_counts.shape[1]
        result = np.full((len(weights), classes), np.nan)
        truths = weights @ self.truth_counts
        for class_id in range(classes):
            chosen = self.class_ids == class_id
            drawn = weights[:, self.image_ids[chosen]].astype(np.float64)
            sums = np.zeros(len(weights))
            for hits, counted in zip(self.matched[chosen].T, self.counted[chosen].T, strict=True):
                kept = drawn if counted.all() else drawn[:, counted]
                sums += _average_precision(kept, hits[counted], truths[:, class_id])
            has_truth = truths[:, class_id] > 0
            result[has_truth, class_id] = sums[has_truth] / len(IOU_THRESHOLDS)
        return result

    def chosen(self, kept: NDArray[np.bool_]) -> DetectEvidence:
        """Returns the evidence of some detections, with the matches they had."""
        return replace(
            self,
            scores=self.scores[kept],
            image_ids=self.image_ids[kept],
            class_ids=self.class_ids[kept],
            matched=self.matched[kept],
            counted=self.counted[kept],
        )

    def part(self, rows: IntArray) -> DetectEvidence:
        places = np.full(self.images, -1)
        places[rows] = np.arange(len(rows))
        kept = self.chosen(places[self.image_ids] >= 0)
        return replace(kept, image_ids=places[kept.image_ids], truth_counts=self.truth_counts[rows])


def detect_evidence(found: Sequence[SceneDetections], truth: Sequence[SceneDetections], classes: int) -> DetectEvidence:
    """Matches every image's detections to its truth, by masks where both have them."""
    has_masks = any(true.masks is not None for true in truth)
    found = [_best_of_each_class(detections) for detections in found]
    matches = [match(detections, true) for detections, true in zip(found, truth, strict=True)]
    scores = np.concatenate([detections.scores for detections in found])
    order = np.argsort(-scores, kind="stable")
    lengths = [len(detections.scores) for detections in found]
    return DetectEvidence(
        scores[order],
        np.repeat(np.arange(len(found)), lengths)[order],
        np.concatenate([detections.class_ids for detections in found])[order].astype(np.int64),
        np.concatenate([hits for hits, _ in matches])[order],
        np.concatenate([counted for _, counted in matches])[order],
        np.stack([np.bincount(true.class_ids[~_crowds(true)], minlength=classes) for true in truth]),
        "mask_map" if has_masks else "map",
    )


def match(found: SceneDetections, truth: SceneDetections) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tells which detections hit a truth box, and which count, at each threshold, (n, thresholds); rows as `found`."""
    hits = np.zeros((len(found.scores), len(IOU_THRESHOLDS)), np.bool_)
    counted = np.ones_like(hits)
    if not len(found.scores) or not len(truth.class_ids):
        return hits, counted
    crowds = _crowds(truth)
    if found.masks is not None and truth.masks is not None:
        overlaps = mask_overlaps(found.masks, truth.masks, crowds)
    else:
        boxes = _with_sizes(found.boxes), _with_sizes(truth.boxes)
        overlaps = np.asarray(coco_mask.iou(*boxes, crowds.astype(np.uint8)))
    overlaps[found.class_ids[:, None] != truth.class_ids[None, :]] = 0.0
    in_crowd = overlaps[:, crowds].max(1, initial=0.0)[:, None] >= IOU_THRESHOLDS
    overlaps = overlaps[:, ~crowds]
    columns = np.arange(len(IOU_THRESHOLDS))
    free = np.ones((len(IOU_THRESHOLDS), overlaps.shape[1]), np.bool_)
    for row in np.argsort(-found.scores, kind="stable"):
        if not overlaps[row].any():
            continue
        # (thresholds, truth); reversed because COCOeval takes the last of equal overlaps
        candidates = np.where(free, overlaps[row], 0.0)[:, ::-1]
        best = overlaps.shape[1] - 1 - candidates.argmax(1)
        is_hit = candidates.max(1) >= IOU_THRESHOLDS
        hits[row] = is_hit
        free[columns[is_hit], best[is_hit]] = False
    return hits, hits | ~in_crowd


def _best_of_each_class(found: SceneDetections) -> SceneDetections:
    if len(found.scores) <= MOST_PER_CLASS:
        return found
    order = np.argsort(-found.scores, kind="stable")
    ids = found.class_ids[order]
    kept = np.sort(np.concatenate([order[ids == each][:MOST_PER_CLASS] for each in np.unique(ids)]))
    masks = None if found.masks is None else [found.masks[row] for row in kept]
    return SceneDetections(found.boxes[kept], found.class_ids[kept], found.scores[kept], masks=masks)


def _crowds(truth: SceneDetections) -> NDArray[np.bool_]:
    return np.zeros(len(truth.class_ids), np.bool_) if truth.is_crowd is None else truth.is_crowd


def _with_sizes(boxes: FloatArray) -> FloatArray:
    """Converts corners to COCO's x, y, width, height."""
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return np.ascontiguousarray(sized, np.float64)  # pycocotools reads the memory in this order


def box_iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Returns the intersection over union of every pair (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.clip(high - low, 0.0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(1) for boxes in (first, second)]
    unions = areas[0][:, None] + areas[1][None, :] - intersection
    result: FloatArray = intersection / np.maximum(unions, 1e-9)
    return result


def _average_precision(drawn: FloatArray, hits: NDArray[np.bool_], truths: IntArray) -> FloatArray:
    """Returns the area under each resample's envelope at RECALL_POINTS; drawn: (resamples, d) by falling score."""
    positions = np.flatnonzero(hits)
    areas = np.zeros(len(drawn))
    if not len(positions):
        return areas
    # After the last hit recall is constant and precision only falls, so later detections cannot matter.
    drawn = drawn[:, : positions[-1] + 1]
    # The envelope changes only at hits, so precision is needed only there.
    true_positives = np.cumsum(drawn[:, positions], axis=1)
    precision = true_positives / np.maximum(np.cumsum(drawn, axis=1)[:, positions], 1e-9)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = true_positives / np.maximum(truths, 1)[:, None]
    for row, (recalls, precisions) in enumerate(zip(recall, envelope, strict=True)):
        reached = np.searchsorted(recalls, RECALL_POINTS)
        within = reached < len(recalls)
        areas[row] = precisions[reached[within]].sum() / len(RECALL_POINTS)
    return areas
