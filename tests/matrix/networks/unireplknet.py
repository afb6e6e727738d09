"""UniRepLKNet blocks (Ding et al., arXiv 2311.15599). Promises: parallel dilated branches merge into one kernel.

Input: float NCHW RGB, uint8 / 255, sides a multiple of 32. Training convolves depthwise with one large kernel and,
beside it, with small dilated ones. A dilated kernel is a larger kernel full of zeros, so that `reparameterize()` adds
them all into the large one. Stem and transitions are convolutions with batch normalisation; the paper's use LayerNorm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.models.networks.layers import ConvNorm, divisible, initialise

# Small kernels and their dilations beside each large kernel, as published.
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
    5: ((3, 1), (3, 2)),
    3: (),
}


class DepthwiseNorm(nn.Module):
    """Depthwise convolution that keeps the size, then batch normalisation."""

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(channels, channels, kernel, 1, padding, dilation, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out

    def folded(self, kernel: int) -> tuple[Tensor, Tensor]:
        """Kernel (channels, 1, kernel, kernel) and bias (channels,), both float64, that compute the same."""
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        dense = dense_kernel(self.conv.weight.double(), self.conv.dilation[0])
        margin = (kernel - dense.shape[-1]) // 2
        weight = functional.pad(dense * scale[:, None, None, None], [margin] * 4)
        return weight, norm.bias.double() - norm.running_mean.double() * scale


def dense_kernel(weight: Tensor, dilation: int) -> Tensor:
    """A dilated kernel (channels, 1, k, k) as one of dilation 1, of side (k - 1) * dilation + 1, zeros between."""
    side = (weight.shape[-1] - 1) * dilation + 1
    dense = weight.new_zeros(*weight.shape[:2], side, side)
    dense[..., ::dilation, ::dilation] = weight
    return dense


class DilatedReparamConv(nn.Module):
    """A large depthwise kernel with parallel dilated branches; `reparameterize()` leaves one convolution."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.large = DepthwiseNorm(channels, kernel)
        self.small = nn.ModuleList(DepthwiseNorm(channels, side, dilation) for side, dilation in BRANCHES[kernel])
        self.merged: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is not None:
            merged: Tensor = self.merged(x)
            return merged
        out: Tensor = self.large(x)
        for branch in self.small:
            out = out + branch(x)
        return out

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Merges all branches in float64, with the statistics of inference. Side effect: the branches are gone."""
        if self.merged is not None:
            return
        folded = [branch.folded(self.kernel) for branch in (self.large, *self.small)]
        like = self.large.conv
        merged = nn.Conv2d(like.in_channels, like.out_channels, self.kernel, 1, self.kernel // 2, groups=like.groups)
        merged = merged.to(like.weight)
        merged.weight.copy_(torch.stack([weight for weight, _ in folded]).sum(0))
        assert merged.bias is not None
        merged.bias.copy_(torch.stack([bias for _, bias in folded]).sum(0))
        del self.large, self.small
        self.merged = merged


class SqueezeExcite(nn.Module):
    """Channels are weighted by what the whole map says about them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weight


class GlobalResponseNorm(nn.Module):
    """Channels compete by their energy over the map (ConvNeXt V2, arXiv 2301.00808)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        energy = x.square().sum((2, 3), keepdim=True).sqrt()
        share = energy / (energy.mean(1, keepdim=True) + 1e-6)
        return (self.scale * share + 1) * x + self.bias


class UniRepLKNetBlock(nn.Module):
    """Large depthwise kernel, squeeze-excite, then a pointwise network with response normalisation; residual."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.depthwise = DilatedReparamConv(channels, kernel)
        self.norm = nn.BatchNorm2d(channels)
        self.excite = SqueezeExcite(channels)
        self.widen = nn.Conv2d(channels, hidden, 1)
        self.response = GlobalResponseNorm(hidden)
        self.narrow = ConvNorm(hidden, channels, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.excite(self.norm(self.depthwise(x)))
        out: Tensor = self.narrow(self.response(functional.gelu(self.widen(mixed))))
        return x + out


@dataclass(frozen=True, slots=True)
class UniRepLKNetConfig:
    classes: int
    widths: tuple[int, int, int, int]  # channels at strides 4, 8, 16 and 32
    kernels: tuple[tuple[int, ...], ...]  # large kernel of every block, per stage; one of BRANCHES


class UniRepLKNet(nn.Module):
    def __init__(self, config: UniRepLKNetConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = ConvNorm(3, widths[0] // 2, 3, 2)
        inputs = (widths[0] // 2, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvNorm(before, width, 3, 2, activation="none"),
                *(UniRepLKNetBlock(width, kernel) for kernel in kernels),
            )
            for before, width, kernels in zip(inputs, widths, config.kernels, strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.classify = nn.Linear(widths[-1], config.classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) to logits (n, classes)."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.classify(self.norm(x).mean((2, 3)))
        return logits


def digits_unireplknet(classes: int = 10, width: float = 1.0) -> UniRepLKNet:
    """A small classifier for digit crops: every large kernel of the paper fits its map at 64x64 and more."""
    w4, w8, w16, w32 = (divisible(width * channels) for channels in (32, 64, 96, 128))
    return UniRepLKNet(
        UniRepLKNetConfig(classes, widths=(w4, w8, w16, w32), kernels=((3, 7), (13, 3), (11, 9, 5), (3, 5)))
    )
