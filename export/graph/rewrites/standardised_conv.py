"""Replaces a weight-standardised convolution with a plain one whose weights are standardised once.

Such convolutions (Qiao et al., arXiv 1903.10520) standardise in every call. The weight that they pass to `conv2d` does
not depend on the image, so it is captured from one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from saccade.export.graph.rewrites.cond_conv import SamePaddedConv2d


class _CatchWeight(TorchFunctionMode):
    """Records the weight of the last conv2d."""

    weight: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d or func is functional.conv2d:
            self.weight = args[1]
        return func(*args, **(kwargs or {}))


def plain_convolution(standardised: nn.Conv2d) -> nn.Conv2d:
    """Returns the replacement of a timm StdConv2d or ScaledStdConv2d, with or without TensorFlow's padding."""
    is_same_padded = bool(getattr(standardised, "same_pad", False))
    padding = standardised.padding if not is_same_padded else 0
    kind: Any = SamePaddedConv2d if is_same_padded else nn.Conv2d  # torch types the geometry as tuples of any length
    plain: nn.Conv2d = kind(
        standardised.in_channels,
        standardised.out_channels,
        standardised.kernel_size,
        stride=standardised.stride,
        padding=padding,
        dilation=standardised.dilation,
        groups=standardised.groups,
        bias=standardised.bias is not None,
        device="meta",
    )
    spans = [d * (k - 1) + 1 for d, k in zip(standardised.dilation, standardised.kernel_size, strict=True)]
    with torch.no_grad(), _CatchWeight() as caught:
        standardised(standardised.weight.new_zeros(1, standardised.in_channels, *spans))
    assert caught.weight is not None
    plain.weight = nn.Parameter(caught.weight.detach().clone(), requires_grad=False)
    plain.bias = standardised.bias
    return plain.train(standardised.training)
