"""Implements SSD, RetinaNet and FCOS as modules that trace, with the library's candidates for every image.

The library's own `forward` loops over images and keeps as many rows as pass a threshold. Here every image keeps the
same number of rows; those at or below the threshold are left to suppression, which does not count them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.sources.torchvision_detection_boxes import (
    anchors_at,
    clipped,
    content_limits,
    decoded,
    feature_maps,
    map_sizes,
    rows_of,
)
from saccade.export.sources.torchvision_detection_canvas import Anchors, ended_at, own_canvas

Candidates = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class SsdCandidates(nn.Module):
    """boxes (n, k, 4), scores (n, k), class_ids (n, k), then the dense logits and regression."""

    anchors: Tensor

    def __init__(self, detector: Any, height: int, width: int) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        self.box_coder, self.most = detector.box_coder, detector.topk_candidates
        anchors = anchors_at(detector.anchor_generator, detector.backbone, height, width)
        self.register_buffer("anchors", anchors.unsqueeze(0), persistent=False)

    def forward(self, images: Tensor) -> Candidates:
        outputs = self.head(feature_maps(self.backbone, images))
        logits, regression = outputs["cls_logits"], outputs["bbox_regression"]
        anchors = self.anchors.expand(images.shape[0], -1, -1)
        boxes = clipped(decoded(self.box_coder, regression, anchors).squeeze(2), content_limits(images, None))
        by_class = logits.softmax(dim=-1)[..., 1:].transpose(1, 2)  # (n, classes, anchors); 0 is the background
        scores, chosen = torch.topk(by_class, min(self.most, by_class.shape[2]), dim=2)
        class_ids = torch.arange(1, by_class.shape[1] + 1).view(1, -1, 1).expand_as(chosen)
        return rows_of(boxes, chosen.flatten(1)), scores.flatten(1), class_ids.flatten(1), logits, regression


class _LevelCandidates(nn.Module):
    """The best (anchor, class) pairs of every level of a pyramid, each picture on its own canvas."""

    def __init__(self, detector: Any, height: int, width: int) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        self.box_coder, self.most = detector.box_coder, detector.topk_candidates
        self.size = (height, width)
        self.anchors = Anchors(detector.anchor_generator, self.size, map_sizes(detector.backbone, height, width))

    def outputs(self, images: Tensor, inside: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """What the head says, and `content_limits` (n, 4)."""
        limits = content_limits(images, inside)
        with ended_at(own_canvas(limits), self.size, inside):
            outputs: dict[str, Tensor] = self.head(feature_maps(self.backbone, images))
        return outputs, limits

    def candidates(
        self, scores: Tensor, regression: Tensor, limits: Tensor, decode: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """scores (n, anchors, classes), regression (n, anchors, 4), limits (n, 4)."""
        classes = scores.shape[2]
        anchors, is_inside = self.anchors(own_canvas(limits))
        scores = torch.where(is_inside.unsqueeze(2), scores, 0.0)
        found = []
        for level in zip(
            *(torch.split(each, self.anchors.level_sizes, dim=1) for each in (scores, regression, anchors)), strict=True
        ):
            level_scores = level[0].flatten(1)
            best, pairs = torch.topk(level_scores, min(self.most, level_scores.shape[1]), dim=1)
            position = torch.div(pairs, classes, rounding_mode="floor")
            boxes = decode(rows_of(level[1], position), rows_of(level[2], position))
            found.append((clipped(boxes, limits), best, pairs - position * classes))
        boxes, best, class_ids = (torch.cat(tensors, dim=1) for tensors in zip(*found, strict=True))
        return boxes, best, class_ids


class RetinaNetCandidates(_LevelCandidates):
    """boxes (n, k, 4), scores (n, k), class_ids (n, k), then the dense logits and regression."""

    def forward(self, images: Tensor, inside: Tensor | None = None) -> Candidates:
        outputs, limits = self.outputs(images, inside)
        logits, regression = outputs["cls_logits"], outputs["bbox_regression"]
        return (*self.candidates(logits.sigmoid(), regression, limits, self._decode), logits, regression)

    def _decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        return decoded(self.box_coder, codes, anchors).squeeze(2)


class FcosCandidates(_LevelCandidates):
    """boxes (n, k, 4), scores (n, k), class_ids (n, k), then the dense scores and regression."""

    def forward(self, images: Tensor, inside: Tensor | None = None) -> Candidates:
        outputs, limits = self.outputs(images, inside)
        regression = outputs["bbox_regression"]
        scores = torch.sqrt(outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid())
        return (*self.candidates(scores, regression, limits, self.box_coder.decode), scores, regression)
