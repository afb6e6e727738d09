"""YOLOv10 detector (Wang et al., arXiv 2405.14458), without NMS: inference runs the one-to-one head alone.

Input: float NCHW RGB, uint8 / 255, of the configured square size. Training returns both heads' raw predictions,
inference returns decoded boxes and scores. The large-kernel branch re-parameterisation of the paper is left out:
compact blocks use one depthwise kernel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from saccade.models.networks.layers import Activation, ConvNorm, divisible, initialise
from saccade.models.networks.yolov10_body import STRIDES, Backbone, Neck, YoloConfig


class RawPredictions(NamedTuple):
    """One head's answer for every anchor, levels concatenated from fine to coarse."""

    distances: Tensor  # (n, anchors, 4 * reg_max) distribution logits, sides left top right bottom
    logits: Tensor  # (n, anchors, classes)


class DualPredictions(NamedTuple):
    """The outputs while training: the raw predictions of both heads."""

    one_to_many: RawPredictions
    one_to_one: RawPredictions


class Head(nn.Module):
    """Box and class branches of one assignment, per level."""

    def __init__(self, config: YoloConfig, channels: tuple[int, int, int]) -> None:
        super().__init__()
        act = config.activation
        hidden, wide = config.box_width, config.class_width
        self.boxes = nn.ModuleList(
            nn.Sequential(
                ConvNorm(inputs, hidden, 3, activation=act),
                ConvNorm(hidden, hidden, 3, activation=act),
                nn.Conv2d(hidden, 4 * config.reg_max, 1),
            )
            for inputs in channels
        )
        self.classes = nn.ModuleList(
            nn.Sequential(
                ConvNorm(inputs, inputs, 3, groups=inputs, activation=act),
                ConvNorm(inputs, wide, activation=act),
                ConvNorm(wide, wide, 3, groups=wide, activation=act),
                ConvNorm(wide, wide, activation=act),
                nn.Conv2d(wide, config.classes, 1),
            )
            for inputs in channels
        )

    def forward(self, features: list[Tensor]) -> RawPredictions:
        distances = [branch(x).flatten(2) for branch, x in zip(self.boxes, features, strict=True)]
        logits = [branch(x).flatten(2) for branch, x in zip(self.classes, features, strict=True)]
        return RawPredictions(torch.cat(distances, 2).transpose(1, 2), torch.cat(logits, 2).transpose(1, 2))

    def start_rare(self) -> None:
        """Biases so that training starts with scores near 1 %: most anchors see no object."""
        for branch in self.classes:
            nn.init.constant_(branch[-1].bias, -math.log(99.0))  # type: ignore[index]  # a Sequential
        for branch in self.boxes:
            nn.init.constant_(branch[-1].bias, 1.0)  # type: ignore[index]  # a Sequential


class YoloV10(nn.Module):
    anchors: Tensor  # (anchors, 2) centre x y, model pixels
    anchor_strides: Tensor  # (anchors, 1)
    bins: Tensor  # (reg_max,) 0, 1, …

    def __init__(self, config: YoloConfig) -> None:
        super().__init__()
        if config.image_size % STRIDES[-1]:
            raise ValueError(f"image_size must be a multiple of {STRIDES[-1]}, got {config.image_size}")
        self.config = config
        self.backbone = Backbone(config)
        self.neck = Neck(config)
        self.one_to_many = Head(config, config.widths[2:])
        self.one_to_one = Head(config, config.widths[2:])
        anchors, strides = anchor_points(config.image_size)
        # Constants of the size, not weights: kept out of the checkpoint.
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("anchor_strides", strides, persistent=False)
        self.register_buffer("bins", torch.arange(config.reg_max, dtype=torch.float32), persistent=False)
        initialise(self)
        self.one_to_many.start_rare()
        self.one_to_one.start_rare()

    def forward(self, images: Tensor) -> DualPredictions | tuple[Tensor, Tensor]:
        """images (n, 3, size, size). Training: both heads, raw. Inference: boxes (n, anchors, 4) x1 y1 x2 y2 in model
        pixels, not clipped, and scores (n, anchors, classes) in 0..1.
        """
        features = self.neck(self.backbone(images))
        if self.training:
            # The one-to-one head learns on top of features that the richer one-to-many signal shapes.
            detached = [feature.detach() for feature in features]
            return DualPredictions(self.one_to_many(features), self.one_to_one(detached))
        raw = self.one_to_one(features)
        return self.decode_boxes(raw.distances), raw.logits.sigmoid()

    def decode_boxes(self, distances: Tensor) -> Tensor:
        """Distribution logits (n, anchors, 4 * reg_max) to x1 y1 x2 y2 (n, anchors, 4), model pixels, not clipped."""
        sides = self.expected_distances(distances) * self.anchor_strides
        return torch.cat([self.anchors - sides[..., :2], self.anchors + sides[..., 2:]], -1)

    def expected_distances(self, distances: Tensor) -> Tensor:
        """Distances (n, anchors, 4) in strides: the mean of each side's distribution."""
        if self.config.reg_max == 1:
            return distances.relu()
        per_side = distances.reshape(*distances.shape[:-1], 4, self.config.reg_max)
        return per_side.softmax(-1) @ self.bins


def anchor_points(image_size: int) -> tuple[Tensor, Tensor]:
    """Cell centres (anchors, 2) x y in pixels and strides (anchors, 1), row by row, from fine to coarse levels."""
    centres, strides = [], []
    for stride in STRIDES:
        axis = (torch.arange(image_size // stride, dtype=torch.float32) + 0.5) * stride
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        centres.append(torch.stack([columns.flatten(), rows.flatten()], 1))
        strides.append(torch.full((axis.numel() ** 2, 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


def yolov10_s(classes: int = 80, image_size: int = 640) -> YoloV10:
    """The paper's S: width 0.5, depth 0.33."""
    config = YoloConfig(
        classes,
        image_size,
        widths=(32, 64, 128, 256, 512),
        depths=(1, 2, 2, 1),
        box_width=64,
        class_width=128,
        compact=True,
    )
    return YoloV10(config)


def digits_detector(
    classes: int = 10, image_size: int = 256, width: float = 1.0, depth: int = 1, activation: Activation = "relu"
) -> YoloV10:
    """The shipped detector for 256x256 scenes."""
    w2, w4, w8, w16, w32 = (divisible(width * channels) for channels in (16, 32, 64, 64, 96))
    config = YoloConfig(
        classes,
        image_size,
        widths=(w2, w4, w8, w16, w32),
        depths=(depth,) * 4,
        box_width=divisible(width * 32),
        class_width=divisible(width * 32),
        activation=activation,
    )
    return YoloV10(config)
