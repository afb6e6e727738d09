"""Deep aggregation pyramid pooling (DDRNet, arXiv 2101.06085), with fixed kernels that also work on 4x4 maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Kernel, stride and padding of the paper's three pools; the fourth is the global mean.
_POOLS = ((5, 2, 2), (9, 4, 4), (17, 8, 8))


class NormConv(nn.Module):
    """Normalisation, ReLU, then convolution, as the paper orders them inside the pyramid."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.relu(self.norm(x)))
        return out


class DAPPM(nn.Module):
    """Pools at four sizes, each enlarged and refined on top of the one before, then concatenated.

    The paper pools 16x32 maps. At 256x256 input the map is 4x4: its pools then reach beyond the map, where they
    still average zero padding as in the paper (count_include_pad), and the third equals a scaled global mean.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        levels = len(_POOLS) + 1
        self.pools = nn.ModuleList(nn.AvgPool2d(kernel, stride, padding) for kernel, stride, padding in _POOLS)
        self.enter = nn.ModuleList(NormConv(inputs, hidden) for _ in range(levels + 1))
        self.refine = nn.ModuleList(NormConv(hidden, hidden, 3) for _ in range(levels))
        self.leave = NormConv((levels + 1) * hidden, outputs)
        self.shortcut = NormConv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        pooled = [pool(x) for pool in self.pools] + [x.mean((2, 3), keepdim=True)]
        parts = [self.enter[0](x)]
        for enter, refine, small in zip(list(self.enter)[1:], self.refine, pooled, strict=True):
            enlarged = functional.interpolate(enter(small), size=size, mode="bilinear")
            parts.append(refine(enlarged + parts[-1]))
        out: Tensor = self.leave(torch.cat(parts, 1)) + self.shortcut(x)
        return out
