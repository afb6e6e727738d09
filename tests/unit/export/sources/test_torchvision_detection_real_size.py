"""torchvision's detectors at their own size. Promises: spread scores, so that a difference is no tie of equal scores.

A fresh detector can give hundreds of boxes the very same score; which of them survives is then chance, in the library
too.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.ops import box_iou

from saccade.export.convert.detection_heads import CandidatesHead
from saccade.export.network import Suppression
from saccade.export.sources.torchvision_detection_dense import SsdCandidates
from saccade.export.sources.torchvision_detection_proposals import FasterRcnnCandidates

CLASSES = 91
SPREAD = 2.0  # standard deviation of class logits and objectness
DETECTORS: dict[str, tuple[type[nn.Module], int]] = {
    "ssd300_vgg16": (SsdCandidates, 300),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (FasterRcnnCandidates, 640),
}


def pictures(side: int) -> Tensor:
    """(2, 3, side, side) with structure at several scales."""
    generator = torch.Generator().manual_seed(11)
    images = torch.zeros(2, 3, side, side)
    for factor in (64, 16, 4):
        coarse = torch.randn(2, 3, side // factor, side // factor, generator=generator)
        images += functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return images / images.std()


def detector_of(name: str, images: Tensor) -> Any:
    """A library detector that resizes nothing, with measured batch statistics and spread scores."""
    torch.manual_seed(20)
    detector: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
    detector.eval().requires_grad_(False)
    transform = detector.transform
    transform.fixed_size, transform.image_mean, transform.image_std = tuple(images.shape[2:]), [0.0] * 3, [1.0] * 3
    for norm in (module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = None
        norm.train()
    detector.backbone(images)
    detector.eval()
    for module in class_layers(detector):
        spread(module, detector, images)
    return detector


def class_layers(detector: Any) -> list[nn.Module]:
    if hasattr(detector, "roi_heads"):
        return [detector.rpn.head.cls_logits, detector.roi_heads.box_predictor.cls_score]
    return list(detector.head.classification_head.module_list)


def spread(layer: Any, detector: nn.Module, images: Tensor) -> None:
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.flatten()))
    detector(list(images))
    hook.remove()
    layer.weight *= SPREAD / torch.cat(outputs).std()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DETECTORS))
def test_detections_are_those_of_the_library(name: str) -> None:
    adapter, side = DETECTORS[name]
    images = pictures(side)
    detector = detector_of(name, images)
    heads = getattr(detector, "roi_heads", detector)
    head = CandidatesHead(heads.detections_per_img, CLASSES, Suppression(heads.nms_thresh, heads.score_thresh))

    boxes, scores, class_ids, counts = head(adapter(detector, side, side)(images))

    for row, expected in enumerate(detector(list(images))):
        found = int(counts[row])
        assert found == len(expected["scores"]) == heads.detections_per_img
        same = is_same(expected, boxes[row, :found], scores[row, :found], class_ids[row, :found])
        assert same.any(dim=1).all()
        assert same.any(dim=0).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(200, 320), (320, 150)])
def test_detections_on_a_larger_canvas_are_those_of_the_picture_alone(size: tuple[int, int]) -> None:
    """On a canvas of 320x320 instead of 224x320 no box was the library's: its layers saw the bars."""
    side = 320
    images = pictures(side)
    detector = detector_of("fasterrcnn_mobilenet_v3_large_fpn", images)
    transform, heads = detector.transform, detector.roi_heads
    transform.fixed_size, transform.min_size, transform.max_size = None, (side,), side
    picture = images[0, :, : size[0], : size[1]]
    canvas, inside = torch.zeros(1, 3, side, side), torch.zeros(1, side, side, dtype=torch.bool)
    canvas[0, :, : size[0], : size[1]], inside[0, : size[0], : size[1]] = picture, True
    head = CandidatesHead(heads.detections_per_img, CLASSES, Suppression(heads.nms_thresh, heads.score_thresh))

    boxes, scores, class_ids, counts = head(FasterRcnnCandidates(detector, side, side)(canvas, inside))

    (expected,) = detector([picture])
    assert counts[0] == len(expected["scores"]) == heads.detections_per_img
    same = is_same(expected, boxes[0], scores[0], class_ids[0])
    assert same.any(dim=1).all()
    assert same.any(dim=0).all()


def is_same(expected: dict[str, Tensor], boxes: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
    """Tells which of the library's detections (rows) is which of ours (columns)."""
    same: Tensor = (
        (box_iou(expected["boxes"], boxes) > 0.99)
        & (expected["labels"].unsqueeze(1) == class_ids)
        & ((expected["scores"].unsqueeze(1) - scores).abs() < 1e-4)
    )
    return same
