"""Measures a variant's task metric with the serving backend, decoding, resizing and geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit, batches
from saccade.export.data.labelled_images import IGNORED, ClassSample, DetectSample, LabelsSample, Sample, SegmentSample
from saccade.export.qualification.detection_evidence import SceneDetections, detect_evidence
from saccade.export.qualification.evidence import ClassifyEvidence, Evidence, SegmentEvidence
from saccade.export.qualification.instance_answers import kept_answer
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.produced_pictures import picture_evidence
from saccade.export.qualification.retrieval import RetrievalFigure, retrieval_evidence, retrieval_figure
from saccade.models.contract.preprocessing import boxes_to_source, mask_to_source
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.metrics.kept_answers import masks_of
from saccade.models.metrics.metrics import confusion_matrix, scores_by_label

Answer = Sequence[NDArray[Any]]  # one array per output tensor
Infer = Callable[[NDArray[np.uint8]], Answer]
Kind = TypeVar("Kind", ClassSample, LabelsSample, DetectSample, SegmentSample)


def evaluate(infer: Infer, split: ImageSplit, task: TaskSpec, classes: int, batch_size: int) -> Evidence:
    """Runs every image of a split once, in batches, and keeps what each contributes to the metric."""
    return evidence_of(answers_of(infer, split, task, batch_size), split, task, classes)


def answers_of(infer: Infer, split: ImageSplit, task: TaskSpec, batch_size: int) -> Answer:
    """Returns the answers to all images of a split, in order; masks of objects as `instance_answers.py` keeps them."""
    groups = batches(split.images, batch_size)
    parts = [kept_answer(infer(batch), task, split, number * batch_size) for number, batch in enumerate(groups)]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def evidence_of(answer: Answer, split: ImageSplit, task: TaskSpec, classes: int) -> Evidence:
    """Makes evidence from the answers to all images of a split."""
    match task.task:
        case Task.CLASSIFY if task.multi_label:
            shown = np.stack([_truth(sample, LabelsSample).is_shown(classes) for sample in split.samples])
            return LabelEvidence(scores_by_label(answer), shown)
        case Task.CLASSIFY:
            return ClassifyEvidence(answer[1][:, 0].astype(np.int64), class_ids_of(split), classes)
        case Task.DETECT | Task.INSTANCES:
            return detect_evidence(*detect_scenes(answer, split), classes)
        case Task.SEGMENT:
            return _segment_evidence(answer[0], split, classes, task.background_id or 0)
        case Task.IMAGE:
            return picture_evidence(answer[0], split, task)
        case Task.EMBED:
            return retrieval_evidence(answer[0], class_ids_of(split), classes)


def retrieval_of(answer: Answer, split: ImageSplit, task: TaskSpec) -> RetrievalFigure | None:
    """Returns what an embedder's vectors find among the pictures of the split; None for other tasks."""
    return retrieval_figure(answer[0], class_ids_of(split)) if task.task is Task.EMBED else None


def class_ids_of(split: ImageSplit) -> NDArray[np.int64]:
    """Returns the one label of each image, (n,)."""
    return np.array([_truth(sample, ClassSample).class_id for sample in split.samples], np.int64)


def detect_scenes(answer: Answer, split: ImageSplit) -> tuple[list[SceneDetections], list[SceneDetections]]:
    """Returns what was found and what is true of each image, in source pixels."""
    found: list[SceneDetections] = []
    truth: list[SceneDetections] = []
    has_masks = len(answer) > 4
    for row, (sample, geometry) in enumerate(zip(split.samples, split.geometries, strict=True)):
        boxes, scores, class_ids, count = (array[row] for array in answer[:4])
        scene = _truth(sample, DetectSample)
        source_boxes = boxes_to_source(boxes[:count], geometry).astype(np.float64)
        masks = masks_of(answer, row, np.arange(count)) if has_masks else None
        found.append(SceneDetections(source_boxes, class_ids[:count], scores[:count].astype(np.float64), masks=masks))
        ones, true_masks = np.ones(len(scene.class_ids)), scene.masks if has_masks else None
        truth.append(SceneDetections(scene.boxes.astype(np.float64), scene.class_ids, ones, scene.is_crowd, true_masks))
    return found, truth


def _segment_evidence(masks: NDArray[np.uint8], split: ImageSplit, classes: int, outside: int) -> Evidence:
    confusions = [
        segment_confusion(mask_to_source(mask, geometry, outside), _truth(sample, SegmentSample).mask, classes)
        for mask, sample, geometry in zip(masks, split.samples, split.geometries, strict=True)
    ]
    return SegmentEvidence(np.stack(confusions))


def segment_confusion(found: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Returns pixel counts (classes, classes) of a mask, rows = truth, without pixels that nobody labelled."""
    labelled = truth != IGNORED
    if classes <= IGNORED and not labelled.all():
        return confusion_matrix(found[labelled], truth[labelled], classes)
    return confusion_matrix(found, truth, classes)


def _truth(sample: Sample, kind: type[Kind]) -> Kind:
    assert isinstance(sample, kind)
    return sample
