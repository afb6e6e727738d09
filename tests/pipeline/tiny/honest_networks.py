"""Networks that are right about pictures of plain colours, and the same ones lying about their form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE, CELL = 32, 8  # of the pictures, and of the squares in them


def _by_colour(weight: list[list[float]], bias: list[float]) -> nn.Conv2d:
    """A 1x1 convolution of red, green and blue."""
    layer = nn.Conv2d(3, len(weight), 1)
    layer.weight.data = torch.tensor(weight)[..., None, None]
    layer.bias = nn.Parameter(torch.tensor(bias))
    return layer


class ColourClassifier(nn.Module):
    """Logits of red, green, blue."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = _by_colour((20.0 * torch.eye(3)).tolist(), [0.0] * 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.colours(images).mean((2, 3))
        return logits


class SoftmaxTwice(ColourClassifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class NotANumberOnPureGreen(ColourClassifier):
    """The logarithm of zero on one picture that no drawn one resembles."""

    def forward(self, images: Tensor) -> Tensor:
        red, green = images[:, 0].mean((1, 2)), images[:, 1].mean((1, 2))
        return super().forward(images) + 0.0 * torch.log(red + 1.0 - green).unsqueeze(1)


class BlindClassifier(ColourClassifier):
    """Always the same."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 1e-9 + torch.tensor([0.0, 1.0, 0.0])


class SquareDetector(nn.Module):
    """White and red squares in the cells of a grid: corners in pixels, scores in 0..1."""

    corners: Tensor

    def __init__(self) -> None:
        super().__init__()
        # By the mean of a cell: white where green is bright, red where red is and green is not.
        self.colours = _by_colour([[0.0, 20.0, 0.0], [20.0, -20.0, 0.0]], [-10.0, -10.0])
        axis = torch.arange(0.0, SIDE, CELL)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        low = torch.stack([columns.flatten(), rows.flatten()], 1)
        self.register_buffer("corners", torch.cat([low, low + CELL], 1), persistent=False)

    def boxes(self) -> Tensor:
        return self.corners

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.colours(nn.functional.avg_pool2d(images, CELL)).flatten(2).transpose(1, 2).sigmoid()
        boxes = self.boxes()
        repeats = len(boxes) // scores.shape[1]
        return boxes.unsqueeze(0) + 0.0 * images[:, :1, :1, 0], torch.cat([scores] * repeats, 1)


class CentreAndSize(SquareDetector):
    def boxes(self) -> Tensor:
        return torch.cat(
            [(self.corners[:, :2] + self.corners[:, 2:]) / 2, self.corners[:, 2:] - self.corners[:, :2]], 1
        )


class RelativeBoxes(SquareDetector):
    def boxes(self) -> Tensor:
        return self.corners / SIDE


class Unsuppressed(SquareDetector):
    def boxes(self) -> Tensor:
        return torch.cat([self.corners, self.corners + 0.2, self.corners - 0.2])


class NextCell(SquareDetector):
    """Every square is found, and boxed elsewhere."""

    def boxes(self) -> Tensor:
        return self.corners.roll(5, 0)


class BrightSegmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.colours = _by_colour([[0.0, -20.0, 0.0], [0.0, 20.0, 0.0]], [10.0, -10.0])

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.colours(images)
        return logits
