"""Finds replacements for modules that do not convert, by the class's full name, so that no library is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from saccade.export.graph.rewrites.cond_conv import mixture_of_convolutions
from saccade.export.graph.rewrites.standardised_conv import plain_convolution

_REPLACEMENTS: dict[str, Callable[[Any], nn.Module]] = {
    "timm.layers.cond_conv2d.CondConv2d": mixture_of_convolutions,
    "timm.layers.std_conv.StdConv2d": plain_convolution,
    "timm.layers.std_conv.StdConv2dSame": plain_convolution,
    "timm.layers.std_conv.ScaledStdConv2d": plain_convolution,
    "timm.layers.std_conv.ScaledStdConv2dSame": plain_convolution,
}


def replacement_of(module: nn.Module) -> nn.Module | None:
    """Returns a module that computes the same in operators that convert; None when the module itself converts."""
    kind = type(module)
    make = _REPLACEMENTS.get(f"{kind.__module__}.{kind.__qualname__}")
    return None if make is None else make(module)
