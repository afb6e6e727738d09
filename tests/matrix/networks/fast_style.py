"""The style network of Johnson et al., Perceptual Losses for Real-Time Style Transfer (arXiv 1603.08155).

Input: float NCHW RGB, uint8 / 255, sides a multiple of 4; output 0 to 255 by a scaled tanh, as published. Instance
normalisation (Ulyanov et al., arXiv 1607.08022) and nearest neighbours before convolutions are what later code took for
batch normalisation and transposed convolutions. No weights belong to it: it has the layers of such files, and no style.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_RANGE = 255.0


def _convolution(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(into, out, kernel, stride))


def _normed(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_convolution(into, out, kernel, stride), nn.InstanceNorm2d(out, affine=True))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _normed(channels, channels, 3)
        self.second = _normed(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.second(torch.relu(self.first(x)))
        return added


class FastStyle(nn.Module):
    """A picture of the same size, in which every pixel depends on all others."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_normed(3, 32, 9), nn.ReLU(), _normed(32, 64, 3, 2), nn.ReLU(), _normed(64, 128, 3, 2), nn.ReLU()),
            *(Residual(128) for _ in range(5)),
            *(nn.Upsample(scale_factor=2), _normed(128, 64, 3), nn.ReLU()),
            *(nn.Upsample(scale_factor=2), _normed(64, 32, 3), nn.ReLU()),
            _convolution(32, 3, 9),
        )

    def forward(self, images: Tensor) -> Tensor:
        styled: Tensor = (torch.tanh(self.layers(images)) + 1.0) * (_RANGE / 2)
        return styled


def fast_style() -> FastStyle:
    return FastStyle()
