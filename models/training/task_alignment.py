"""Task-aligned assignment (TOOD, arXiv 2108.07755; dual form: YOLOv10). An anchor learns at most one truth.

The metric is score^alpha * iou^beta. Both heads use the same alpha and beta (the paper's "consistent matching"), so
the anchor the one-to-one head picks is the one-to-many head's best one; only the number of anchors per truth differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Objects of a batch, padded: rows past an image's objects have class -1."""

    boxes: Tensor  # (n, rows, 4) x1 y1 x2 y2, pixels
    class_ids: Tensor  # (n, rows) int64


@dataclass(frozen=True, slots=True)
class Matching:
    anchors_per_truth: int  # 10 for one-to-many, 1 for one-to-one
    alpha: float = 0.5
    beta: float = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class AnchorAssignment:
    positive: Tensor  # (n, anchors) bool
    rows: Tensor  # (n, anchors) int64, the truth row of each positive anchor
    boxes: Tensor  # (n, anchors, 4) that truth's box
    scores: Tensor  # (n, anchors, classes) target scores: the normalised metric at the truth's class


@torch.no_grad()
def assign(boxes: Tensor, scores: Tensor, anchors: Tensor, truth: Truth, matching: Matching) -> AnchorAssignment:
    """Pairs predictions with truth.

    boxes: (n, anchors, 4), scores: (n, anchors, classes) in 0..1, anchors: (anchors, 2) centres; all in pixels.
    """
    valid = truth.class_ids >= 0
    labels = truth.class_ids.clamp_min(0)
    inside = _inside(anchors, truth.boxes) & valid[..., None]
    overlaps = box_iou(truth.boxes, boxes) * inside
    class_scores = scores.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, scores.shape[1]))
    metric = class_scores.pow(matching.alpha) * overlaps.pow(matching.beta) * inside

    top, positions = metric.topk(matching.anchors_per_truth, dim=-1)
    chosen = torch.zeros_like(metric).scatter_(-1, positions, (top > _TINY).to(metric.dtype)) > 0
    # An anchor that several truths chose learns the truth that it overlaps most.
    owner = torch.where(chosen, overlaps, -1.0).argmax(1)
    positive = chosen.any(1)
    chosen &= torch.zeros_like(chosen).scatter_(1, owner[:, None], positive[:, None])

    metric = metric * chosen
    best_metric = metric.amax(-1, keepdim=True)
    best_overlap = (overlaps * chosen).amax(-1, keepdim=True)
    strength = (metric / (best_metric + _TINY) * best_overlap).amax(1)
    targets = torch.zeros_like(scores).scatter_(2, labels.gather(1, owner)[..., None], strength[..., None])
    matched = truth.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    return AnchorAssignment(positive, owner, matched, targets * positive[..., None])


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair: (n, a, 4) and (n, b, 4) to (n, a, b)."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1) for boxes in (first, second)]
    return shared / (areas[0][:, :, None] + areas[1][:, None, :] - shared + _TINY)


def _inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Whether each anchor's centre lies in each box (n, rows, anchors)."""
    low = anchors[None, None] - boxes[:, :, None, :2]
    high = boxes[:, :, None, 2:] - anchors[None, None]
    return torch.cat([low, high], -1).amin(-1) > 0
