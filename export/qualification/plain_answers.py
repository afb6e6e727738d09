"""Computes answers in the plain textbook form, which tests compare the heads of the graph with.

Suppression is torchvision's own, image by image, over all candidates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from saccade.export.convert.answer_heads import LEAST_NUMBER
from saccade.export.convert.detection_heads import SCORE_FLOOR
from saccade.export.convert.normalisation import flat_outputs
from saccade.export.network import Network, Suppression
from saccade.models.contract.specs import PreprocessSpec, TaskSpec


def plain_answer(network: Network, task: TaskSpec, preprocess: PreprocessSpec, raw: Any) -> tuple[Tensor, ...]:
    """Returns the tensors of `saccade.models.contract.specs.output_tensors` from what the network answered."""
    outputs = flat_outputs(raw)
    match network.form:
        case "logits" | "probabilities":
            scores = outputs[0]
            if task.temperature != 1.0:
                logits = scores if network.form == "logits" else scores.clamp_min(LEAST_NUMBER).log()
                scores = functional.softmax(logits / task.temperature, dim=1)
            elif network.form == "logits":
                scores = torch.sigmoid(scores) if task.multi_label else functional.softmax(scores, dim=1)
            best, class_ids = torch.topk(scores, task.top_k, dim=1)
            return best, class_ids.to(torch.int32)
        case "dense_logits":
            size = (preprocess.height, preprocess.width)
            logits = functional.interpolate(outputs[0], size=size, mode="bilinear", align_corners=False)
            return (logits.argmax(dim=1).to(torch.uint8),)
        case "boxes":
            return _detections(*_all_pairs(outputs[0], outputs[1]), network.suppression, task.max_detections)
        case "candidates":
            return _detections(outputs[0], outputs[1], outputs[2], network.suppression, task.max_detections)
        case "prototype_masks" | "box_masks":
            *rows, masks = outputs[:4]
            answer = _detections(rows[0], rows[1], rows[2], network.suppression, task.max_detections, masks)
            return answer if network.form == "box_masks" else (*answer, outputs[4])
        case "vectors":
            return (functional.normalize(outputs[0].flatten(1), dim=1),)
        case "pixels":
            return (_picture(outputs[0], task, preprocess),)


def _picture(found: Tensor, task: TaskSpec, preprocess: PreprocessSpec) -> Tensor:
    if task.picture == "depth":
        size = (preprocess.height, preprocess.width)
        depth = found.reshape(len(found), 1, *found.shape[-2:])
        return functional.interpolate(depth, size=size, mode="bilinear", align_corners=False)[:, 0]
    low, high = task.values
    shown = ((found - low) / (high - low)).clamp(0.0, 1.0)
    if task.picture == "grey":
        return shown.reshape(len(found), *found.shape[-2:])
    shown = shown.permute(0, 2, 3, 1)
    return shown.flip(-1) if preprocess.channel_order == "bgr" else shown


def _all_pairs(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Repeats every anchor once per class."""
    count, anchors, classes = scores.shape
    class_ids = torch.arange(classes).expand(count, anchors, classes)
    repeated = boxes.unsqueeze(2).expand(-1, -1, classes, -1)
    return repeated.reshape(count, -1, 4), scores.flatten(1), class_ids.flatten(1)


def _detections(
    boxes: Tensor,
    scores: Tensor,
    class_ids: Tensor,
    suppression: Suppression | None,
    rows: int,
    *more: Tensor,
) -> tuple[Tensor, ...]:
    """`more`: tensors (n, k, ...) whose rows belong to the boxes."""
    images = [
        _detections_of_one(image[0], image[1], image[2], suppression, rows, *image[3:])
        for image in zip(boxes, scores, class_ids, *more, strict=True)
    ]
    return tuple(torch.stack(tensors) for tensors in zip(*images, strict=True))


def _detections_of_one(
    boxes: Tensor, scores: Tensor, class_ids: Tensor, suppression: Suppression | None, rows: int, *more: Tensor
) -> tuple[Tensor, ...]:
    """Turns boxes (k, 4), scores (k,), class_ids (k,) of one image into its padded answer."""
    if suppression is None:
        chosen = torch.topk(scores, min(rows, len(scores))).indices
    else:
        from torchvision.ops import batched_nms  # takes seconds, and most networks need none of it

        candidates = torch.where(scores > suppression.score_threshold)[0]
        groups = class_ids[candidates] if suppression.per_class else torch.zeros_like(class_ids[candidates])
        survivors = batched_nms(boxes[candidates], scores[candidates], groups, suppression.iou_threshold)
        chosen = candidates[survivors[:rows]]
    chosen = chosen[scores[chosen] > SCORE_FLOOR]
    answer_boxes, answer_scores = torch.zeros(rows, 4), torch.zeros(rows)
    answer_ids = torch.zeros(rows, dtype=torch.int32)
    answer_boxes[: len(chosen)] = boxes[chosen]
    answer_scores[: len(chosen)] = scores[chosen]
    answer_ids[: len(chosen)] = class_ids[chosen].to(torch.int32)
    others = []
    for values in more:
        padded = torch.zeros(rows, *values.shape[1:])
        padded[: len(chosen)] = values[chosen]
        others.append(padded)
    return answer_boxes, answer_scores, answer_ids, torch.tensor(len(chosen), dtype=torch.int32), *others
