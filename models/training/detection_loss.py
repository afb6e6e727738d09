"""Loss of the dual-assignment detector. The terms of its two heads differ only in their matching."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from saccade.models.networks.yolov10 import DualPredictions, RawPredictions, YoloV10
from saccade.models.training.task_alignment import Matching, Truth, assign

# Weights of YOLOv8 and YOLOv10: boxes must outweigh the many easy negatives of the class term.
_BOX_WEIGHT, _CLASS_WEIGHT, _DISTRIBUTION_WEIGHT = 7.5, 0.5, 1.5
ONE_TO_MANY, ONE_TO_ONE = Matching(anchors_per_truth=10), Matching(anchors_per_truth=1)


def detection_loss(network: YoloV10, predictions: DualPredictions, truth: Truth) -> Tensor:
    """Scalar loss, per unit of target score: sum of both heads' terms."""
    return _head_loss(network, predictions.one_to_many, truth, ONE_TO_MANY) + _head_loss(
        network, predictions.one_to_one, truth, ONE_TO_ONE
    )


def _head_loss(network: YoloV10, raw: RawPredictions, truth: Truth, matching: Matching) -> Tensor:
    distances, logits = raw.distances.float(), raw.logits.float()
    boxes = network.decode_boxes(distances)
    found = assign(boxes.detach(), logits.detach().sigmoid(), network.anchors, truth, matching)
    total = found.scores.sum().clamp_min(1.0)
    loss = _CLASS_WEIGHT * functional.binary_cross_entropy_with_logits(logits, found.scores, reduction="sum")
    if found.positive.any():
        weights = found.scores.sum(-1)[found.positive]
        targets = found.boxes[found.positive]
        overlap = complete_iou(boxes[found.positive], targets)
        loss = loss + _BOX_WEIGHT * ((1.0 - overlap) * weights).sum()
        if network.config.reg_max > 1:
            positions = found.positive.nonzero()[:, 1]
            sides = _sides(network.anchors[positions], targets) / network.anchor_strides[positions]
            logits_per_side = distances[found.positive].reshape(-1, 4, network.config.reg_max)
            loss = loss + _DISTRIBUTION_WEIGHT * (_distribution_focal_loss(logits_per_side, sides) * weights).sum()
    return loss / total


def _sides(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Distances (p, 4) left top right bottom from anchors to the boxes' edges, pixels."""
    return torch.cat([anchors - boxes[:, :2], boxes[:, 2:] - anchors], 1)


def _distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy on the two bins around each distance (arXiv 2006.04388), mean over sides: (p, 4, bins) to (p,)."""
    bins = logits.shape[-1]
    clipped = distances.clamp(0.0, bins - 1.01)
    lower = clipped.long()
    upper_share = clipped - lower
    log_probabilities = logits.log_softmax(-1)
    at_lower = log_probabilities.gather(-1, lower[..., None])[..., 0]
    at_upper = log_probabilities.gather(-1, lower[..., None] + 1)[..., 0]
    return -(at_lower * (1.0 - upper_share) + at_upper * upper_share).mean(-1)


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """CIoU (arXiv 1911.08287) of paired boxes (p, 4): overlap less centre distance and aspect mismatch."""
    sizes = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-6) for boxes in (first, second)]
    shared = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp_min(0)
    intersection = shared.prod(-1)
    iou = intersection / (sizes[0].prod(-1) + sizes[1].prod(-1) - intersection + 1e-9)
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    centres = (first[:, :2] + first[:, 2:] - second[:, :2] - second[:, 2:]) / 2
    distance = centres.square().sum(-1) / (hull.square().sum(-1) + 1e-9)
    angles = [torch.atan(size[:, 0] / size[:, 1]) for size in sizes]
    mismatch = (4 / math.pi**2) * (angles[0] - angles[1]).square()
    with torch.no_grad():
        trade = mismatch / (1.0 - iou + mismatch + 1e-9)
    return iou - distance - trade * mismatch
