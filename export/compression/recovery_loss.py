"""Measures how far a student's raw outputs are from its teacher's: one number per batch, zero where both agree.

Function matching needs no labels: Beyer et al., Knowledge distillation: a good teacher is patient and consistent
(arXiv 2106.05237); Hinton et al., arXiv 1503.02531, for the temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from saccade.models.training.detection_loss import complete_iou

Meaning = Literal["distribution", "scored_boxes", "numbers"]
"""Meaning of the raw outputs: class logits on axis 1; boxes and scores in 0..1; or any other numbers."""

_BOX_WEIGHT, _DISTANCE_WEIGHT = 5.0, 0.05  # weights of overlap and of pixel distance, relative to the score term
_LEAST_SCORE = 0.01  # anchors whose score is lower hold no box worth imitating


def distillation_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], meaning: Meaning, temperature: float
) -> Tensor:
    """Returns the scalar loss between the same raw outputs of student and teacher for the same images."""
    match meaning:
        case "distribution":
            return _divergence(student[0], teacher[0], temperature)
        case "scored_boxes":
            return _boxes(student[0], student[1], teacher[0], teacher[1])
        case "numbers":
            return torch.stack(
                [_relative_square(found, wanted) for found, wanted in zip(student, teacher, strict=True)]
            ).sum()


def label_loss(student: Sequence[Tensor], class_ids: Tensor) -> Tensor:
    """Returns the cross-entropy of a classifier's logits (n, classes)."""
    return functional.cross_entropy(student[0].float(), class_ids)


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns the Kullback-Leibler divergence over axis 1, averaged over the rest, times the squared temperature."""
    wanted = (teacher.float() / temperature).log_softmax(1)
    found = (student.float() / temperature).log_softmax(1)
    return (wanted.exp() * (wanted - found)).sum(1).mean() * temperature**2


def _boxes(boxes: Tensor, scores: Tensor, teacher_boxes: Tensor, teacher_scores: Tensor) -> Tensor:
    """Returns the loss per unit of teacher score; boxes are (n, anchors, 4), scores (n, anchors, classes)."""
    wanted = teacher_scores.float()
    found = scores.float().clamp(1e-6, 1.0 - 1e-6)
    entropy = functional.binary_cross_entropy(found, wanted, reduction="sum")
    least = functional.binary_cross_entropy(wanted.clamp(1e-6, 1.0 - 1e-6), wanted, reduction="sum")
    weights = wanted.amax(2)
    chosen = weights > _LEAST_SCORE
    total = weights[chosen].sum().clamp_min(1.0)
    loss = (entropy - least) / total
    if chosen.any():
        left, right = boxes.float()[chosen], teacher_boxes.float()[chosen]
        gap = (1.0 - complete_iou(left, right)) * _BOX_WEIGHT + (left - right).abs().mean(1) * _DISTANCE_WEIGHT
        loss = loss + (gap * weights[chosen]).sum() / total
    return loss


def _relative_square(found: Tensor, wanted: Tensor) -> Tensor:
    target = wanted.float()
    return (found.float() - target).square().mean() / target.square().mean().clamp_min(1e-12)
