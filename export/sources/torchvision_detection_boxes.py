"""Implements the box arithmetic of torchvision's detectors for whole batches, in a form that traces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList


def content_limits(images: Tensor, inside: Tensor | None) -> Tensor:
    """(n, 4) width, height, width, height of what is not bar; boxes are clipped to it, as the library does."""
    if inside is None:
        inside = torch.ones_like(images[:, 0], dtype=torch.bool)
    heights = inside.any(dim=2).sum(dim=1)
    widths = inside.any(dim=1).sum(dim=1)
    return torch.stack([widths, heights, widths, heights], dim=1).to(images.dtype)


def clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (n, k, 4) within 0..limits (n, 4)."""
    return torch.minimum(boxes.clamp(min=0), limits.unsqueeze(1))


def is_larger(boxes: Tensor, side: float) -> Tensor:
    """(n, k) bool: both sides reach `side`."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return (sizes >= side).all(dim=-1)


def rows_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows (n, k, width) of values (n, all, width) at positions (n, k)."""
    return torch.gather(values, 1, chosen.unsqueeze(2).expand(-1, -1, values.shape[2]))


def decoded(coder: Any, codes: Tensor, anchors: Tensor) -> Tensor:
    """`BoxCoder.decode_single` for codes (n, k, 4 * classes) and anchors (n, k, 4): (n, k, classes, 4)."""
    boxes: Tensor = coder.decode_single(codes.flatten(0, 1), anchors.flatten(0, 1))
    return boxes.reshape(codes.shape[0], codes.shape[1], -1, 4)


def anchors_at(generator: nn.Module, backbone: nn.Module, height: int, width: int) -> Tensor:
    """Anchors (all, 4) of the library's generator for one canvas size."""
    images = torch.zeros(1, 3, height, width)
    with torch.no_grad():
        found: list[Tensor] = generator(ImageList(images, [(height, width)]), feature_maps(backbone, images))
    return found[0]


def map_sizes(backbone: nn.Module, height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the feature maps of one canvas size."""
    with torch.no_grad():
        maps = feature_maps(backbone, torch.zeros(1, 3, height, width))
    return [(feature.shape[2], feature.shape[3]) for feature in maps]


def feature_maps(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    features = backbone(images)
    return [features] if isinstance(features, Tensor) else list(features.values())
