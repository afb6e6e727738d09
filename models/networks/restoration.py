"""Networks that restore pictures, RGB in 0..1 to RGB: a denoiser and one that enlarges by two.

DnCNN is Zhang et al., Beyond a Gaussian Denoiser (arXiv 1608.03981), with fewer layers and channels. The second one is
built of the residual blocks of Lim et al., EDSR (arXiv 1707.02921), and shuffles its channels into pixels at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.models.networks.layers import ConvNorm, initialise

_CHANNELS = 32


class DnCNN(nn.Module):
    """Finds the noise of a picture and takes it away."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*(ConvNorm(channels, channels, 3) for _ in range(depth - 2)))
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        initialise(self)
        nn.init.zeros_(self.last.weight)  # begins as the identity

    def forward(self, images: Tensor) -> Tensor:
        noise: Tensor = self.last(self.body(torch.relu(self.first(images))))
        return images - noise


class ResidualBlock(nn.Module):
    """Two convolutions without normalisation, added to what went in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(torch.relu(self.first(x)))
        return out


class SuperResolution(nn.Module):
    """Enlarges by `scale`: each pixel repeated, and what the network adds to it."""

    def __init__(self, scale: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        residuals = [ResidualBlock(channels) for _ in range(blocks)]
        self.body = nn.Sequential(*residuals)
        self.last = nn.Conv2d(channels, 3 * scale * scale, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        initialise(self)
        for block in residuals:
            nn.init.zeros_(block.second.weight)
        nn.init.zeros_(self.last.weight)  # begins as each pixel repeated

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        added = self.last(features + self.body(features))
        enlarged: Tensor = self.shuffle(added + images.repeat_interleave(self.scale**2, dim=1))
        return enlarged


def denoiser() -> DnCNN:
    """Eight layers: a pixel depends on those within eight of it."""
    return DnCNN(depth=8, channels=_CHANNELS)


def super_resolution() -> SuperResolution:
    """Twice as large on each side, by four blocks."""
    return SuperResolution(scale=2, blocks=4, channels=_CHANNELS)
