"""DDRNet-23-slim segmenter (Hong et al., arXiv 2101.06085), with logits at input size or, on request, at 1/8.

Input: float NCHW RGB, uint8 / 255, sides a multiple of 64. A fine branch stays at 1/8 while a coarse
one goes down to 1/64; the two exchange features twice (bilateral fusion), and DAPPM gives the coarse end its context.
Training adds the auxiliary head on the fine branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from saccade.models.networks.dappm import DAPPM
from saccade.models.networks.layers import ConvNorm, divisible, initialise

OUTPUT_STRIDE = 8


@dataclass(frozen=True, slots=True)
class DDRNetConfig:
    classes: int
    fine: int  # channels of the fine branch; the stem has half
    coarse: tuple[int, int, int]  # channels of the coarse branch at 1/16, 1/32 and 1/64
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)  # blocks at 1/4, 1/8, 1/16 and 1/32, both branches
    pyramid: int = 128  # channels inside DAPPM
    head: int = 64  # channels of the segmentation heads


class SegmentationLogits(NamedTuple):
    """The outputs while training: logits (n, classes, h / 8, w / 8) of both heads."""

    main: Tensor
    auxiliary: Tensor


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions. `open_end` leaves out the last ReLU where a fusion adds to the result first."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, open_end: bool = False) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3, activation="none")
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, activation="none")
        self.end = nn.Identity() if open_end else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.second(self.first(x)) + self.shortcut(x))
        return out


class DoublingBottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 to `outputs` channels, without a last ReLU since fusion or pooling follows."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(inputs, inputs), ConvNorm(inputs, inputs, 3, stride), ConvNorm(inputs, outputs, activation="none")
        )
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x) + self.shortcut(x)
        return out


def _stage(inputs: int, outputs: int, depth: int, stride: int = 1) -> nn.Sequential:
    """Residual blocks. The first may stride; the last has no final ReLU, because a fusion follows."""
    first = [ResidualBlock(inputs, outputs, stride, open_end=depth == 1)]
    rest = [ResidualBlock(outputs, outputs, open_end=position == depth - 1) for position in range(1, depth)]
    return nn.Sequential(*first, *rest)


class BilateralFusion(nn.Module):
    """Each branch receives the other's features: coarse ones enlarged, fine ones strided down by `halvings`."""

    def __init__(self, fine: int, coarse: int, halvings: int) -> None:
        super().__init__()
        self.to_fine = ConvNorm(coarse, fine, activation="none")
        channels = [fine, *(fine * 2**step for step in range(1, halvings)), coarse]
        last = halvings - 1
        self.to_coarse = nn.Sequential(
            *(
                ConvNorm(channels[step], channels[step + 1], 3, 2, activation="none" if step == last else "relu")
                for step in range(halvings)
            )
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Both inputs are activated; both results are not."""
        enlarged = functional.interpolate(self.to_fine(coarse), size=fine.shape[-2:], mode="bilinear")
        return enlarged, self.to_coarse(fine)


class SegmentationHead(nn.Module):
    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.hidden = ConvNorm(inputs, hidden, 3)
        self.classify = nn.Conv2d(hidden, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classify(self.hidden(functional.relu(self.norm(x))))
        return out


class DDRNet(nn.Module):
    def __init__(self, config: DDRNetConfig) -> None:
        super().__init__()
        self.config = config
        stem, fine = config.fine // 2, config.fine
        at16, at32, at64 = config.coarse
        d4, d8, d16, d32 = config.depths
        self.stem = nn.Sequential(ConvNorm(3, stem, 3, 2), ConvNorm(stem, stem, 3, 2))
        self.stage4 = _stage(stem, stem, d4)
        self.stage8 = _stage(stem, fine, d8, 2)
        self.coarse16 = _stage(fine, at16, d16, 2)
        self.fine16 = _stage(fine, fine, d16)
        self.fusion16 = BilateralFusion(fine, at16, 1)
        self.coarse32 = _stage(at16, at32, d32, 2)
        self.fine32 = _stage(fine, fine, d32)
        self.fusion32 = BilateralFusion(fine, at32, 2)
        self.coarse64 = DoublingBottleneck(at32, at64, 2)
        self.fine64 = DoublingBottleneck(fine, 2 * fine)
        self.context = DAPPM(at64, config.pyramid, 2 * fine)
        self.head = SegmentationHead(2 * fine, config.head, config.classes)
        self.auxiliary_head = SegmentationHead(fine, config.head, config.classes)
        initialise(self)

    def forward(self, images: Tensor) -> SegmentationLogits | Tensor:
        """images (n, 3, h, w). Training: both heads at 1/8. Inference: logits (n, classes, h, w), enlarged."""
        main, auxiliary_features = self._features(images)
        if self.training:
            return SegmentationLogits(self.head(main), self.auxiliary_head(auxiliary_features))
        return functional.interpolate(self.head(main), scale_factor=float(OUTPUT_STRIDE), mode="bilinear")

    def logits_at_stride(self, images: Tensor) -> Tensor:
        """Main logits (n, classes, h / 8, w / 8), before any enlargement."""
        main, _ = self._features(images)
        logits: Tensor = self.head(main)
        return logits

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features at 1/8 that the main and the auxiliary head read."""
        relu = functional.relu
        shared = relu(self.stage8(relu(self.stage4(self.stem(images)))))
        coarse, fine = self.coarse16(shared), self.fine16(shared)
        to_fine, to_coarse = self.fusion16(relu(fine), relu(coarse))
        coarse, fine = coarse + to_coarse, fine + to_fine
        auxiliary = fine
        coarse, fine = self.coarse32(relu(coarse)), self.fine32(relu(fine))
        to_fine, to_coarse = self.fusion32(relu(fine), relu(coarse))
        coarse, fine = coarse + to_coarse, fine + to_fine
        context = self.context(self.coarse64(relu(coarse)))
        fine = self.fine64(relu(fine))
        return fine + functional.interpolate(context, size=fine.shape[-2:], mode="bilinear"), auxiliary


def ddrnet23_slim(classes: int = 19) -> DDRNet:
    """The paper's slim configuration, for 1024x2048 street scenes."""
    return DDRNet(DDRNetConfig(classes, fine=64, coarse=(128, 256, 512)))


def digits_segmenter(classes: int = 11, width: float = 1.0, depth: int = 1) -> DDRNet:
    """The shipped segmenter for 256x256 scenes: half the paper's width, `depth` blocks in the two coarse stages."""
    fine = divisible(width * 32, 32)  # the stem has half of it
    at16, at32, at64 = (divisible(width * channels) for channels in (64, 64, 128))
    config = DDRNetConfig(
        classes,
        fine=fine,
        coarse=(at16, at32, at64),
        depths=(2, 2, depth, depth),
        pyramid=divisible(width * 48),
        head=divisible(width * 32),
    )
    return DDRNet(config)
