"""Layers that all reference networks share. Their convolutions fold with their normalisation on export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "silu", "none"]  # relu keeps int8 ranges simple; silu is what YOLOv10's paper uses

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "none": nn.Identity,
}


def activation_layer(name: Activation) -> nn.Module:
    return _ACTIVATIONS[name]()


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, activation; padding keeps the size at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution and unit normalisation, in module order (so a seed fixes the weights)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def trained_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def divisible(channels: float, step: int = 16) -> int:
    """`channels` rounded to a multiple of `step` (at least one step): 2:4 kernels and int8 lanes want multiples."""
    return max(step, int(channels / step + 0.5) * step)


def as_float(pixels_u8: Tensor) -> Tensor:
    """uint8 NHWC pixels to what every network takes: float NCHW = uint8 / 255, mean 0 and scale 1/255."""
    return pixels_u8.permute(0, 3, 1, 2).to(torch.float32).mul(1.0 / 255.0)
