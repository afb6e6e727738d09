"""Networks of a few thousand weights. Promises: the shapes of the three tasks, random but seeded weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _body(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 2, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, 2, 1),
        nn.ReLU(),
    )


class TinyClassifier(nn.Module):
    def __init__(self, classes: int = 10, channels: int = 8) -> None:
        super().__init__()
        self.body = _body(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.pool(self.body(images)).flatten(1))
        return logits


class TinyDetector(nn.Module):
    """Boxes around fixed anchors at stride 4, decoded with a product by a constant vector."""

    bins: Tensor
    centres: Tensor

    def __init__(self, classes: int = 10, size: int = 32) -> None:
        super().__init__()
        self.body = _body(8)
        self.distances = nn.Conv2d(8, 4 * 4, 1)
        self.scores = nn.Conv2d(8, classes, 1)
        self.register_buffer("bins", torch.arange(4, dtype=torch.float32), persistent=False)
        axis = (torch.arange(size // 4) + 0.5) * 4
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("centres", torch.stack([columns.flatten(), rows.flatten()], 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        spread = self.distances(features).flatten(2).transpose(1, 2).unflatten(-1, (4, 4)).softmax(-1)
        sides = (spread @ self.bins) * 4
        boxes = torch.cat([self.centres - sides[..., :2], self.centres + sides[..., 2:]], -1)
        return boxes, self.scores(features).flatten(2).transpose(1, 2).sigmoid()


class Untraceable(TinyClassifier):
    """Decides by value, which no tracer can follow."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if float(logits.sum()) > 0 else -logits


class TinySegmenter(nn.Module):
    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.body = _body(8)
        self.norm = nn.BatchNorm2d(8)
        self.classify = nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError("inference calls logits_at_stride")

    def logits_at_stride(self, images: Tensor) -> Tensor:
        features = self.body(images)
        context = nn.functional.interpolate(nn.functional.avg_pool2d(features, 2), size=features.shape[-2:])
        logits: Tensor = self.classify(torch.relu(self.norm(features + context)))
        return logits


class WideClassifier(nn.Module):
    """Wide enough for int8 on tensor cores, and for 2:4: its second and third convolution."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.pool(self.body(images)).flatten(1))
        return logits
