"""Turns boxes into the fixed-size answer: at most `rows` detections, best first; rows past `counts` are zero.

Only the few best anchors are sorted. Suppression keeps every row in place and removes its score, so the batch stays
dynamic and one selection at the end serves both kinds of network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.convert.normalisation import flat_outputs
from saccade.export.convert.suppression import keep_per_class
from saccade.export.network import Suppression

SCORE_FLOOR = 0.001  # detections below this score are padding; no metric and no request uses them
# Greedy suppression compares only with better boxes, so cutting the list at this many rows changes an answer only when
# fewer than `max_detections` of them survive. TensorRT sorts at most 3840 rows.
SUPPRESSED_ROWS = 2000


class BoxesHead(nn.Module):
    """Turns dense boxes and class scores into the `rows` best (anchor, class) pairs."""

    def __init__(self, rows: int, suppression: Suppression | None = None) -> None:
        super().__init__()
        self.rows = rows
        self.suppression = suppression

    def forward(self, raw: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """raw: boxes (n, anchors, 4) x1 y1 x2 y2 in model pixels, scores (n, anchors, classes) in 0..1."""
        boxes, scores = flat_outputs(raw)[:2]
        if self.suppression is None:
            return padded_answer(*best_pairs(boxes, scores, self.rows), self.rows)
        candidates = best_pairs(boxes, scores, SUPPRESSED_ROWS)
        return suppressed_answer(*candidates, scores.shape[2], self.suppression, self.rows)


class CandidatesHead(nn.Module):
    """Selects the `rows` best of boxes that each have one class."""

    def __init__(self, rows: int, classes: int, suppression: Suppression | None = None) -> None:
        super().__init__()
        self.rows = rows
        self.classes = classes
        self.suppression = suppression

    def forward(self, raw: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """raw: boxes (n, k, 4 or more, which go with the box), scores (n, k), class_ids (n, k) int64."""
        boxes, scores, class_ids = flat_outputs(raw)[:3]
        if self.suppression is None:
            return padded_answer(*best_rows(boxes, scores, class_ids, self.rows), self.rows)
        candidates = best_rows(boxes, scores, class_ids, SUPPRESSED_ROWS)
        return suppressed_answer(*candidates, self.classes, self.suppression, self.rows)


class InstancesHead(nn.Module):
    """Selects as `CandidatesHead`; what each row says of its mask goes with the row."""

    def __init__(self, tensors: int, rows: int, classes: int, suppression: Suppression | None = None) -> None:
        super().__init__()
        self.tensors = tensors
        self.select = CandidatesHead(rows, classes, suppression)

    def forward(self, raw: Any) -> tuple[Tensor, ...]:
        """raw: as CandidatesHead, then mask numbers (n, k, ...), then what belongs to the whole image."""
        boxes, scores, class_ids, masks, *whole = flat_outputs(raw)[: self.tensors]
        joined = torch.cat([boxes, masks.flatten(2)], 2)
        rows, scores, class_ids, counts = self.select((joined, scores, class_ids))
        return rows[..., :4], scores, class_ids, counts, rows[..., 4:].unflatten(2, masks.shape[2:]), *whole


def suppressed_answer(
    boxes: Tensor, scores: Tensor, class_ids: Tensor, classes: int, suppression: Suppression, rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Applies non-maximum suppression to candidates as in `CandidatesHead`, and returns the answer."""
    groups, count = (class_ids, classes) if suppression.per_class else (torch.zeros_like(class_ids), 1)
    keep = keep_per_class(boxes[..., :4], scores, groups, count, suppression.iou_threshold, suppression.score_threshold)
    left = torch.where(keep, scores, torch.zeros((), dtype=scores.dtype))
    return padded_answer(*best_rows(boxes, left, class_ids, rows), rows)


def best_pairs(boxes: Tensor, scores: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns at most `most` (anchor, class) pairs, best first: boxes (n, k, 4), scores and class_ids (n, k)."""
    anchors, classes = scores.shape[1:]
    # The best `most` pairs lie within the best `most` anchors, so the second selection is small.
    _, near = torch.topk(scores.amax(dim=2), min(most, anchors), dim=1)
    near_scores = torch.gather(scores, 1, near.unsqueeze(2).expand(-1, -1, classes)).flatten(1)
    best, pairs = torch.topk(near_scores, min(most, near_scores.shape[1]), dim=1)
    position = torch.div(pairs, classes, rounding_mode="floor")
    chosen = torch.gather(near, 1, position).unsqueeze(2).expand(-1, -1, 4)
    return torch.gather(boxes, 1, chosen), best, pairs - position * classes


def best_rows(boxes: Tensor, scores: Tensor, class_ids: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns at most `most` rows, best first."""
    best, chosen = torch.topk(scores, min(most, scores.shape[1]), dim=1)
    return (
        torch.gather(boxes, 1, chosen.unsqueeze(2).expand(-1, -1, boxes.shape[2])),
        best,
        torch.gather(class_ids, 1, chosen),
    )


def padded_answer(boxes: Tensor, scores: Tensor, class_ids: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the contract's answer: rows below the score floor are zero, and missing rows are added."""
    missing = rows - scores.shape[1]
    if missing > 0:
        boxes = nn.functional.pad(boxes, (0, 0, 0, missing))
        scores = nn.functional.pad(scores, (0, missing))
        class_ids = nn.functional.pad(class_ids, (0, missing))
    kept = scores > SCORE_FLOOR
    zero = torch.zeros((), dtype=scores.dtype)
    return (
        torch.where(kept.unsqueeze(2), boxes, zero),
        torch.where(kept, scores, zero),
        (class_ids * kept).to(torch.int32),
        kept.sum(dim=1).to(torch.int32),
    )
