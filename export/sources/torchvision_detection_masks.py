"""Implements Mask R-CNN as a module that traces: Faster R-CNN's boxes, suppressed, with the library's mask of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.convert.detection_heads import CandidatesHead
from saccade.export.network import Suppression
from saccade.export.sources.torchvision_detection_proposals import FasterRcnnCandidates, PyramidPool
from saccade.models.contract.specs import MaskSpec

MASK_DENSE_OUTPUTS = 5


class MaskRcnnObjects(nn.Module):
    """boxes (n, k, 4), scores (n, k), class_ids (n, k), masks (n, k, h, w) in 0..1, then Faster R-CNN's dense outputs
    and the mask logits of each row (n, k, h * w).

    The mask head looks at the boxes that are answered, so suppression comes before it and not behind the network.
    """

    def __init__(self, detector: Any, height: int, width: int) -> None:
        super().__init__()
        heads = detector.roi_heads
        self.candidates = FasterRcnnCandidates(detector, height, width)
        classes = heads.box_predictor.cls_score.out_features
        suppression = Suppression(heads.nms_thresh, heads.score_thresh)
        self.select = CandidatesHead(heads.detections_per_img, classes, suppression)
        self.pool = PyramidPool(detector, heads.mask_roi_pool, height, width)
        self.mask_head, self.mask_predictor = heads.mask_head, heads.mask_predictor

    def forward(self, images: Tensor, inside: Tensor | None = None) -> tuple[Tensor, ...]:
        (boxes, scores, class_ids, *dense), features = self.candidates.with_features(images, inside)
        boxes, scores, class_ids, _ = self.select((boxes, scores, class_ids))
        class_ids = class_ids.to(torch.int64)
        logits = self.mask_predictor(self.mask_head(self.pool(features, boxes)))  # (n * k, classes, h, w)
        own = class_ids.view(-1, 1, 1, 1).expand(-1, 1, logits.shape[2], logits.shape[3])
        logits = torch.gather(logits, 1, own).view(*boxes.shape[:2], *logits.shape[2:])
        return boxes, scores, class_ids, logits.sigmoid(), *dense, logits.flatten(2)


def mask_spec(detector: Any) -> MaskSpec:
    """The size of the mask head's answer, twice that of its pooled boxes: its predictor doubles it."""
    height, width = (2 * side for side in detector.roi_heads.mask_roi_pool.output_size)
    return MaskSpec(form="boxes", height=height, width=width)
