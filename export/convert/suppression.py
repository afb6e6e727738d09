"""Implements non-maximum suppression as one operator with a fixed-shape answer and a dynamic batch.

`torchvision.ops.nms` returns as many indices as boxes survive, which no tracer can follow through a batch. This
operator returns a flag per box instead, and becomes ONNX NonMaxSuppression when the graph is converted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("saccade::nms_keep", mutates_args=())
def nms_keep(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """Tells which boxes (n, k, 4) survive, as bool (n, k).

    scores (n, classes, k): a box is judged within each class in which its score exceeds the threshold, and survives
    when at least one class keeps it.
    """
    from torchvision.ops import nms  # takes seconds, and most networks need none of it

    keep = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    for image in range(boxes.shape[0]):
        for of_class in scores[image]:
            rows = torch.where(of_class > score_threshold)[0]
            keep[image, rows[nms(boxes[image, rows], of_class[rows], iou_threshold)]] = True
    return keep


@nms_keep.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def keep_per_class(
    boxes: Tensor, scores: Tensor, class_ids: Tensor, classes: int, iou_threshold: float, score_threshold: float
) -> Tensor:
    """Works as `torchvision.ops.batched_nms` for a batch: bool (n, k) for boxes (n, k, 4), scores and class_ids (n, k).

    Rows whose score is not above `score_threshold` are ignored. Classes are kept apart as classes of the operator, not
    by offsets on coordinates, because offsets of thousands of pixels cost digits of the overlap.
    """
    own = class_ids.unsqueeze(1) == torch.arange(classes, device=class_ids.device).view(1, -1, 1)
    outside = torch.tensor(score_threshold - 1.0, dtype=scores.dtype)
    keep: Tensor = nms_keep(boxes, torch.where(own, scores.unsqueeze(1), outside), iou_threshold, score_threshold)
    return keep


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns the table for `torch.onnx.export(custom_translation_table=…)`."""
    return {torch.ops.saccade.nms_keep.default: _onnx_nms_keep}


def _onnx_nms_keep(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
    """Writes the survivors into a field of zeros."""
    from onnxscript import opset18  # imported here because running a network eagerly needs no converter

    op: Any = opset18  # its type hints exclude Python numbers, which it accepts
    most = op.Shape(scores, start=2, end=3)
    found = op.NonMaxSuppression(boxes, scores, most, iou_threshold, score_threshold)  # (m, 3) image, class, box
    rows = op.Concat(op.Slice(found, [0], [1], [1]), op.Slice(found, [2], [3], [1]), axis=1)  # (m, 2) image, box
    nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(boxes, start=0, end=2))
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(rows, start=0, end=1))
    return op.Greater(op.ScatterND(nothing, rows, ones), op.Constant(value_float=0.5))
