"""Figures of networks on sample sets, in fp32 and evaluation mode, by the metrics that export gates on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.models.digits.digit_scenes import CLASS_NAMES, SEGMENT_CLASS_NAMES
from saccade.models.digits.digit_sources import UInt8Array
from saccade.models.metrics.detection_metrics import MAX_DETECTIONS, Detections, average_precision, match_records
from saccade.models.metrics.metrics import confusion_matrix, mean_iou, top1, top1_correct
from saccade.models.networks.layers import as_float
from saccade.models.training.samples import CropSet, SceneSet

_BATCH = 32


def classifier_top1(network: nn.Module, samples: CropSet) -> float:
    scores = np.concatenate([logits.numpy() for logits in _outputs(network, samples.images)])
    return top1(top1_correct(scores, samples.class_ids))


def detector_map(network: nn.Module, samples: SceneSet) -> float:
    """mAP@[.50:.95] of the best MAX_DETECTIONS answers per image, without a score threshold."""
    answers: list[Detections] = []
    for boxes, scores in _outputs(network, samples.images):
        answers.extend(best_detections(image, score) for image, score in zip(boxes, scores, strict=True))
    return average_precision(match_records(answers, scene_truth(samples), len(CLASS_NAMES)))


def segmenter_miou(network: nn.Module, samples: SceneSet) -> float:
    """mIoU of the masks at input size, background included."""
    classes = len(SEGMENT_CLASS_NAMES)
    total = np.zeros((classes, classes), np.int64)
    predicted = (mask for logits in _outputs(network, samples.images) for mask in logits.argmax(1).numpy())
    for mask, truth in zip(predicted, samples.masks, strict=True):
        total += confusion_matrix(mask, truth, classes)
    return mean_iou(total)


def best_detections(boxes: Tensor, scores: Tensor, count: int = MAX_DETECTIONS) -> Detections:
    """The `count` best (anchor, class) pairs of one image. boxes: (anchors, 4), scores: (anchors, classes)."""
    best, positions = scores.flatten().topk(count)
    classes = scores.shape[1]
    rows = torch.div(positions, classes, rounding_mode="floor")
    return Detections(boxes[rows].numpy(), (positions % classes).numpy(), best.numpy())


def scene_truth(samples: SceneSet) -> list[Detections]:
    """Truth per image, padding removed."""
    rows = zip(samples.boxes, samples.class_ids, samples.counts(), strict=True)
    return [Detections(boxes[:n], class_ids[:n], np.ones(n, np.float32)) for boxes, class_ids, n in rows]


def inference_flops(network: nn.Module, size: int) -> int:
    """Operations for one (size, size) image; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops())


def _outputs(network: nn.Module, images: UInt8Array) -> Iterator[Any]:
    """The network's answer per batch of images, in order."""
    for start in range(0, len(images), _BATCH):
        batch = as_float(torch.from_numpy(images[start : start + _BATCH]))
        yield _infer(network, batch.contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def _infer(network: nn.Module, batch: Tensor) -> Any:
    return network.eval()(batch)
