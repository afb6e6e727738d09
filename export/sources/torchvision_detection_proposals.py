"""Implements Faster R-CNN as a module that traces, with a fixed number of the library's proposals and boxes.

Proposals that suppression removes stay as rows without a score, and what the second stage says about them is no
candidate. Rows keep the order of the anchors, not of the scores: two proposals that score the same but for rounding
would otherwise swap places between one runtime and the next.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from saccade.export.convert.suppression import keep_per_class
from saccade.export.sources.torchvision_detection_boxes import (
    clipped,
    content_limits,
    decoded,
    is_larger,
    map_sizes,
    rows_of,
)
from saccade.export.sources.torchvision_detection_canvas import Anchors, edge_repeated, ended_at, own_canvas

_NO_PROPOSAL = -1.0  # below every probability
_BEYOND = -1e4  # objectness of anchors beyond the picture's own canvas; below any that a network gives


class FasterRcnnCandidates(nn.Module):
    """boxes (n, k, 4), scores (n, k), class_ids (n, k), then objectness, box deltas, class logits, regression."""

    def __init__(self, detector: Any, height: int, width: int) -> None:
        super().__init__()
        self.backbone, self.size = detector.backbone, (height, width)
        self.proposals = Proposals(detector.rpn, detector.backbone, height, width)
        heads = detector.roi_heads
        self.pool = PyramidPool(detector, heads.box_roi_pool, height, width)
        self.box_head, self.box_predictor, self.box_coder = heads.box_head, heads.box_predictor, heads.box_coder

    def forward(self, images: Tensor, inside: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.with_features(images, inside)[0]

    def with_features(self, images: Tensor, inside: Tensor | None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The answer, and the maps that it comes from as `PyramidPool` takes them."""
        limits = content_limits(images, inside)
        own = own_canvas(limits)
        with ended_at(own, self.size, inside):
            features = self.backbone(images)
            proposals, is_proposal, objectness, deltas = self.proposals(list(features.values()), limits, own)
        if inside is not None:
            features = {name: edge_repeated(maps, own, self.size) for name, maps in features.items()}
        logits, regression = self.box_predictor(self.box_head(self.pool(features, proposals)))
        count, rows = proposals.shape[:2]
        logits, regression = logits.reshape(count, rows, -1), regression.reshape(count, rows, -1)
        boxes, scores, class_ids = self._candidates(logits, regression, proposals, is_proposal, limits)
        return (boxes, scores, class_ids, objectness, deltas, logits, regression), features

    def _candidates(
        self, logits: Tensor, regression: Tensor, proposals: Tensor, is_proposal: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Every proposal once per class except the background, which is class 0."""
        boxes = clipped(decoded(self.box_coder, regression, proposals)[:, :, 1:].flatten(1, 2), limits)
        scores = logits.softmax(dim=-1)[:, :, 1:]
        class_ids = torch.arange(1, scores.shape[2] + 1).expand_as(scores).flatten(1)
        scores = torch.where(is_proposal.unsqueeze(2), scores, 0.0).flatten(1)
        return boxes, torch.where(is_larger(boxes, 1e-2), scores, 0.0), class_ids  # the library's limit for slivers


class Proposals(nn.Module):
    """The region proposal network, to a fixed number of boxes, each picture on its own canvas."""

    levels: Tensor

    def __init__(self, rpn: Any, backbone: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.head, self.box_coder = rpn.head, rpn.box_coder
        self.before, self.after = rpn.pre_nms_top_n(), rpn.post_nms_top_n()
        self.iou_threshold, self.score_threshold, self.min_size = rpn.nms_thresh, rpn.score_thresh, rpn.min_size
        self.anchors = Anchors(rpn.anchor_generator, (height, width), map_sizes(backbone, height, width))
        kept = [min(self.before, size) for size in self.anchors.level_sizes]
        levels = torch.cat([torch.full((rows,), level) for level, rows in enumerate(kept)])
        self.register_buffer("levels", levels.unsqueeze(0), persistent=False)

    def forward(self, features: list[Tensor], limits: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """boxes (n, p, 4), which of them are proposals (n, p), and the dense objectness and deltas.

        `limits` (n, 4) as of `content_limits`, `own` (n, 2) as of `own_canvas`.
        """
        objectness, deltas = self._dense(features)
        anchors, is_inside = self.anchors(own)
        chosen = self._best_of_levels(torch.where(is_inside, objectness, _BEYOND))
        boxes = clipped(decoded(self.box_coder, rows_of(deltas, chosen), rows_of(anchors, chosen)).squeeze(2), limits)
        scores = torch.gather(objectness, 1, chosen).sigmoid()
        fits = is_larger(boxes, self.min_size) & (scores >= self.score_threshold) & torch.gather(is_inside, 1, chosen)
        scores = torch.where(fits, scores, _NO_PROPOSAL)
        levels = self.levels.expand_as(scores)
        keep = keep_per_class(
            boxes, scores, levels, len(self.anchors.level_sizes), self.iou_threshold, _NO_PROPOSAL / 2
        )
        scores = torch.where(keep, scores, _NO_PROPOSAL)
        _, best = torch.topk(scores, min(self.after, scores.shape[1]), dim=1)
        best, _ = torch.sort(best, dim=1)
        return rows_of(boxes, best), torch.gather(keep, 1, best), objectness, deltas

    def _dense(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Objectness (n, anchors) and deltas (n, anchors, 4), in the order of the anchors."""
        objectness, deltas = self.head(features)
        flat = [level.permute(0, 2, 3, 1).flatten(1) for level in objectness]
        boxes = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, 4) for level in deltas]
        return torch.cat(flat, dim=1), torch.cat(boxes, dim=1)

    def _best_of_levels(self, objectness: Tensor) -> Tensor:
        """Positions (n, k) of the best anchors of every level, ascending."""
        found, offset = [], 0
        for level in torch.split(objectness, self.anchors.level_sizes, dim=1):
            _, best = torch.topk(level, min(self.before, level.shape[1]), dim=1)
            best, _ = torch.sort(best, dim=1)
            found.append(best + offset)
            offset += level.shape[1]
        return torch.cat(found, dim=1)


class PyramidPool(nn.Module):
    """RoIAlign on the pyramid level that fits each box: all levels are pooled, then one is taken.

    Gathering the boxes of a level would make shapes depend on data, which neither batches nor TensorRT allow.
    """

    def __init__(self, detector: Any, pool: Any, height: int, width: int) -> None:
        super().__init__()
        self.names, self.output_size, self.sampling_ratio = pool.featmap_names, pool.output_size, pool.sampling_ratio
        self.canonical_scale, self.canonical_level = pool.canonical_scale, pool.canonical_level
        with torch.no_grad():
            features = detector.backbone(torch.zeros(1, 3, height, width))
        maps = [feature for name, feature in features.items() if name in self.names]
        # The library's guess of a map's stride: the power of two nearest to it.
        strides = [round(float(torch.tensor(height / feature.shape[2]).log2())) for feature in maps]
        self.scales, self.first_level = [2.0**-stride for stride in strides], strides[0]

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """boxes (n, p, 4) to (n * p, channels, height, width)."""
        images = torch.arange(boxes.shape[0], dtype=boxes.dtype).view(-1, 1, 1).expand(-1, boxes.shape[1], 1)
        regions = torch.cat([images, boxes], dim=2).flatten(0, 1)
        maps = [feature for name, feature in features.items() if name in self.names]
        pooled = [self._pooled(feature, regions, scale) for feature, scale in zip(maps, self.scales, strict=True)]
        if len(pooled) == 1:
            return pooled[0]
        levels = self._levels(boxes.flatten(0, 1)).view(-1, 1, 1, 1)
        total = torch.zeros_like(pooled[0])
        for level, of_level in enumerate(pooled):
            total = torch.where(levels == level, of_level, total)
        return total

    def _pooled(self, feature: Tensor, regions: Tensor, scale: float) -> Tensor:
        pooled: Tensor = roi_align(feature, regions, self.output_size, scale, self.sampling_ratio)
        return pooled

    def _levels(self, boxes: Tensor) -> Tensor:
        """Equation 1 of Feature Pyramid Networks (arXiv 1612.03144), as positions among the pooled maps."""
        sides = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        # A row without area has no logarithm; its level does not matter.
        ideal = self.canonical_level + torch.log2(sides.clamp(min=1e-6) / self.canonical_scale) + 1e-6
        return torch.floor(ideal).clamp(self.first_level, self.first_level + len(self.scales) - 1) - self.first_level
