"""Feature extractor of YOLOv10 (arXiv 2405.14458): backbone and neck give maps at strides 8, 16 and 32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saccade.models.networks.layers import Activation, ConvNorm
from saccade.models.networks.yolov10_blocks import PSA, SPPF, C2f, SCDown

STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class YoloConfig:
    classes: int
    image_size: int  # square, a multiple of 32
    widths: tuple[int, int, int, int, int]  # channels at strides 2, 4, 8, 16, 32
    depths: tuple[int, int, int, int]  # bottlenecks at strides 4, 8, 16, 32; the neck uses the last
    box_width: int  # hidden channels of the box branch
    class_width: int  # hidden channels of the class branch
    reg_max: int = 16  # bins of the distance distribution per side; 1 regresses the distance itself
    activation: Activation = "silu"
    attention: bool = True
    compact: bool = False  # compact inverted blocks at stride 32, as in the paper's S


class Backbone(nn.Module):
    """Features at strides 8, 16 and 32."""

    def __init__(self, config: YoloConfig) -> None:
        super().__init__()
        act = config.activation
        w2, w4, w8, w16, w32 = config.widths
        d4, d8, d16, d32 = config.depths
        kernel = 7 if config.compact else None
        self.to4 = nn.Sequential(
            ConvNorm(3, w2, 3, 2, activation=act), ConvNorm(w2, w4, 3, 2, activation=act), C2f(w4, w4, d4, True, act)
        )
        self.to8 = nn.Sequential(ConvNorm(w4, w8, 3, 2, activation=act), C2f(w8, w8, d8, True, act))
        self.to16 = nn.Sequential(SCDown(w8, w16, act), C2f(w16, w16, d16, True, act))
        self.to32 = nn.Sequential(
            SCDown(w16, w32, act),
            C2f(w32, w32, d32, True, act, kernel),
            SPPF(w32, act),
            PSA(w32, act) if config.attention else nn.Identity(),
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        at8: Tensor = self.to8(self.to4(images))
        at16: Tensor = self.to16(at8)
        at32: Tensor = self.to32(at16)
        return [at8, at16, at32]


class Neck(nn.Module):
    """Path aggregation: coarse features go down to the fine maps, then fine features back up."""

    def __init__(self, config: YoloConfig) -> None:
        super().__init__()
        act, depth = config.activation, config.depths[-1]
        _, _, w8, w16, w32 = config.widths
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")
        self.down16 = C2f(w32 + w16, w16, depth, False, act)
        self.down8 = C2f(w16 + w8, w8, depth, False, act)
        self.shrink8 = ConvNorm(w8, w8, 3, 2, activation=act)
        self.up16 = C2f(w8 + w16, w16, depth, False, act)
        self.shrink16 = SCDown(w16, w16, act)
        self.up32 = C2f(w16 + w32, w32, depth, False, act, 7 if config.compact else None)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        at8, at16, at32 = features
        mixed16 = self.down16(torch.cat([self.enlarge(at32), at16], 1))
        out8 = self.down8(torch.cat([self.enlarge(mixed16), at8], 1))
        out16 = self.up16(torch.cat([self.shrink8(out8), mixed16], 1))
        out32 = self.up32(torch.cat([self.shrink16(out16), at32], 1))
        return [out8, out16, out32]
