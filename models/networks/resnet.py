"""ResNet classifier (He et al., arXiv 1512.03385), which returns logits; configurations give the paper's depths.

Input: float NCHW RGB, uint8 / 255. The stem is the paper's 7x7 and pool, or one 3x3 convolution for small pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from saccade.models.networks.layers import ConvNorm, divisible, initialise


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]  # blocks per stage; each stage after the first halves the resolution
    widths: tuple[int, ...]  # channels per stage, before the bottleneck's expansion
    classes: int
    stem: Literal["imagenet", "small"] = "imagenet"


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, width, 3, stride)
        self.second = ConvNorm(width, width, 3, activation="none")
        self.shortcut = _shortcut(inputs, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return out


class BottleneckBlock(nn.Module):
    """1x1 down, 3x3, 1x1 up; the stride sits on the 3x3 as in later practice (ResNet v1.5)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.reduce = ConvNorm(inputs, width)
        self.middle = ConvNorm(width, width, 3, stride)
        self.expand = ConvNorm(width, outputs, activation="none")
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.expand(self.middle(self.reduce(x))) + self.shortcut(x))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return ConvNorm(inputs, outputs, 1, stride, activation="none")


class ResNet(nn.Module):
    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        block = BasicBlock if config.block == "basic" else BottleneckBlock
        channels = config.widths[0]
        if config.stem == "imagenet":
            self.stem = nn.Sequential(ConvNorm(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1))
        else:
            self.stem = nn.Sequential(ConvNorm(3, channels, 3, 2))
        stages: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            blocks: list[nn.Module] = []
            for position in range(depth):
                stride = 2 if position == 0 and stage > 0 else 1
                blocks.append(block(channels, width, stride))
                channels = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, config.classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) in 0..1 to logits (n, classes)."""
        logits: Tensor = self.classify(self.pool(self.stages(self.stem(images))).flatten(1))
        return logits


def resnet18(classes: int = 1000) -> ResNet:
    return ResNet(ResNetConfig("basic", (2, 2, 2, 2), (64, 128, 256, 512), classes))


def resnet50(classes: int = 1000) -> ResNet:
    return ResNet(ResNetConfig("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), classes))


def digits_classifier(classes: int = 10, width: float = 1.0, depth: int = 1) -> ResNet:
    """The shipped classifier for 64x64 crops: `depth` basic blocks per stage, widths 16 to 128 at `width` 1."""
    widths = tuple(divisible(width * channels) for channels in (16, 32, 64, 128))
    return ResNet(ResNetConfig("basic", (depth,) * 4, widths, classes, stem="small"))
