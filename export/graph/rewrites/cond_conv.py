"""Replaces a CondConv with a mixture of convolutions that answers each sample alike in every batch.

CondConv (Yang et al., arXiv 1904.04971) mixes K kernels per sample and convolves each sample with its own. Convolving
is linear in the kernel, so mixing the K outputs by the same weights is equal, and no tensor's shape depends on the
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class MixtureOfConvolutions(nn.Module):
    """A module that takes images (n, channels, height, width) and routing weights (n, K)."""

    def __init__(self, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, images: Tensor, routing_weights: Tensor) -> Tensor:
        shares = routing_weights.unsqueeze(2).unsqueeze(3)  # (n, K, 1, 1)
        mixed: Tensor = shares[:, :1] * self.experts[0](images)
        for index, expert in enumerate(self.experts[1:], start=1):
            mixed = mixed + shares[:, index : index + 1] * expert(images)
        return mixed


class SamePaddedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: sides divided by stride, rounded up; the odd pixel goes to the end."""

    def forward(self, images: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # functional.pad begins with the last axis
            side = images.shape[2 + axis]
            span = (-(-side // self.stride[axis]) - 1) * self.stride[axis] + self.dilation[axis] * (
                self.kernel_size[axis] - 1
            )
            total = max(span + 1 - side, 0)
            pads.extend((total // 2, total - total // 2))
        return super().forward(functional.pad(images, pads))


def mixture_of_convolutions(cond_conv: Any) -> MixtureOfConvolutions:
    """Returns the replacement of a timm CondConv2d; it shares the kernels' memory."""
    kind = SamePaddedConv2d if cond_conv.dynamic_padding else nn.Conv2d
    experts = []
    for index in range(cond_conv.num_experts):
        expert = kind(
            cond_conv.in_channels,
            cond_conv.out_channels,
            cond_conv.kernel_size,
            stride=cond_conv.stride,
            padding=0 if cond_conv.dynamic_padding else cond_conv.padding,
            dilation=cond_conv.dilation,
            groups=cond_conv.groups,
            bias=cond_conv.bias is not None,
            device="meta",
        )
        expert.weight = nn.Parameter(cond_conv.weight.data[index].view(cond_conv.weight_shape), requires_grad=False)
        if cond_conv.bias is not None:
            expert.bias = nn.Parameter(cond_conv.bias.data[index], requires_grad=False)
        experts.append(expert)
    return MixtureOfConvolutions(experts).train(cond_conv.training)
