"""Building blocks of YOLOv10 (Wang et al., arXiv 2405.14458), with static shapes, which export well."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.models.networks.layers import Activation, ConvNorm


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a residual where the caller's block has one."""

    def __init__(self, channels: int, residual: bool, activation: Activation) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3, activation=activation)
        self.second = ConvNorm(channels, channels, 3, activation=activation)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return x + out if self.residual else out


class CompactBottleneck(nn.Module):
    """Compact inverted block: cheap depthwise mixing around pointwise convolutions (section 3.2 of the paper)."""

    def __init__(self, channels: int, residual: bool, activation: Activation, kernel: int = 3) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels, activation=activation),
            ConvNorm(channels, wide, activation=activation),
            ConvNorm(wide, wide, kernel, groups=wide, activation=activation),
            ConvNorm(wide, channels, activation=activation),
            ConvNorm(channels, channels, 3, groups=channels, activation=activation),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class C2f(nn.Module):
    """Cross-stage block: half the channels pass through `depth` bottlenecks, every intermediate is kept."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        residual: bool,
        activation: Activation,
        compact_kernel: int | None = None,
    ) -> None:
        super().__init__()
        hidden = outputs // 2
        self.enter = ConvNorm(inputs, 2 * hidden, activation=activation)
        self.blocks = nn.ModuleList(
            Bottleneck(hidden, residual, activation)
            if compact_kernel is None
            else CompactBottleneck(hidden, residual, activation, compact_kernel)
            for _ in range(depth)
        )
        self.leave = ConvNorm((2 + depth) * hidden, outputs, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        out: Tensor = self.leave(torch.cat(parts, 1))
        return out


class SCDown(nn.Module):
    """Spatial-channel decoupled downsampling: pointwise channels first, then a strided depthwise convolution."""

    def __init__(self, inputs: int, outputs: int, activation: Activation) -> None:
        super().__init__()
        self.pointwise = ConvNorm(inputs, outputs, activation=activation)
        self.depthwise = ConvNorm(outputs, outputs, 3, 2, groups=outputs, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.depthwise(self.pointwise(x))
        return out


class SPPF(nn.Module):
    """Three chained 5x5 max pools, whose windows cover 5, 9 and 13 pixels."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        hidden = channels // 2
        self.enter = ConvNorm(channels, hidden, activation=activation)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = ConvNorm(4 * hidden, channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        out: Tensor = self.leave(torch.cat(parts, 1))
        return out


class Attention(nn.Module):
    """Multi-head self-attention over positions; keys are half as wide as values; a depthwise convolution adds place."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value_dim = channels // heads
        self.key_dim = self.value_dim // 2
        self.qkv = ConvNorm(channels, channels + 2 * self.key_dim * heads, activation="none")
        self.position = ConvNorm(channels, channels, 3, groups=channels, activation="none")
        self.project = ConvNorm(channels, channels, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        per_head = self.qkv(x).reshape(-1, self.heads, 2 * self.key_dim + self.value_dim, height * width)
        query, key, value = per_head.split([self.key_dim, self.key_dim, self.value_dim], 2)
        weights = (query.transpose(2, 3) @ key * self.key_dim**-0.5).softmax(-1)
        mixed = (value @ weights.transpose(2, 3)).reshape(-1, channels, height, width)
        out: Tensor = self.project(mixed + self.position(value.reshape(-1, channels, height, width)))
        return out


class PSA(nn.Module):
    """Partial self-attention: only half the channels attend, at the lowest resolution."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        hidden = channels // 2
        self.enter = ConvNorm(channels, 2 * hidden, activation=activation)
        self.attention = Attention(hidden, heads=max(1, hidden // 64))
        self.feed_forward = nn.Sequential(
            ConvNorm(hidden, 2 * hidden, activation=activation), ConvNorm(2 * hidden, hidden, activation="none")
        )
        self.leave = ConvNorm(2 * hidden, channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        passed, attended = self.enter(x).chunk(2, 1)
        attended = attended + self.attention(attended)
        attended = attended + self.feed_forward(attended)
        out: Tensor = self.leave(torch.cat([passed, attended], 1))
        return out
