"""Gives a fresh network of the library outputs with real spread. Runs in the library's environment.

A fresh head answers the same everywhere: every score is 1e-5 and every box has one size, so that nothing could be
compared. Batch statistics are measured on photographs as training would leave them; then each head's last layer is
scaled to a spread, centred per class, and shifted so that tens of boxes per picture pass the library's threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_CLASS_SPREAD = 2.0  # standard deviation of a classifier's logits
_LOGITS_ABOVE = 6.0  # of a detector's surest box above the threshold: more would be 1.0, and ties
_BIN_SPREAD = 1.5  # of the logits of a box side's distribution
_SIDE_SPREAD, _SIDE_MEAN = 0.8, 4.0  # of a box side that is told as it is, in strides
_MASK_SPREAD = 1.0  # of mask coefficients
_PASSING, _PICTURES_BELOW = 150, 0.75  # in so many of the pictures, at most so many candidates pass
_THRESHOLD = 0.25  # what `predict` shows


@torch.no_grad()
def give_spread(network: nn.Module, images: Tensor) -> None:
    """Side effect: changes the network's statistics and the last layers of its heads. images: (n, 3, h, w), 0 to 1."""
    network.eval()
    measure_statistics(network, images)
    head: Any = network.model[-1]  # type: ignore[index]
    if hasattr(head, "linear"):
        spread_layers([head.linear], images, network, _CLASS_SPREAD)
        return
    has_bins = head.reg_max > 1
    for prefix in ("", "one2one_"):
        boxes, classes = getattr(head, f"{prefix}cv2", None), getattr(head, f"{prefix}cv3", None)
        if boxes is None or classes is None:
            continue
        spread_layers(last_layers(boxes), images, network, _BIN_SPREAD if has_bins else _SIDE_SPREAD)
        if not has_bins:
            for layer in last_layers(boxes):
                bias_of(layer).add_(_SIDE_MEAN)
        spread_classes(last_layers(classes), images, network)
        if (masks := getattr(head, f"{prefix}cv4", None)) is not None:
            spread_layers(last_layers(masks), images, network, _MASK_SPREAD)


def measure_statistics(network: nn.Module, images: Tensor) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean of what it sees
        norm.reset_running_stats()
        norm.train()
    network(images)
    for norm, momentum in zip(norms, kept, strict=True):
        variance = norm.get_buffer("running_var")
        variance.lerp_(variance.mean(), 0.1)  # a channel that hardly moved would be enlarged without measure
        norm.momentum = momentum
    network.eval()


def last_layers(levels: nn.Module) -> list[nn.Conv2d]:
    """Of each level of a head."""
    found = [level[-1] for level in levels.children()]  # type: ignore[index]
    return found


def spread_classes(layers: Sequence[nn.Conv2d], images: Tensor, network: nn.Module) -> None:
    """Side effect: tens of candidates pass in most pictures, and the best of all is sure."""
    forget_pictures(layers, images, network)
    logits = spread_layers(layers, images, network, 1.0)
    best = torch.cat([level.amax(1).flatten(1) for level in logits], 1)  # (n, anchors)
    passing = torch.quantile(best, 1 - _PASSING / best.shape[1], dim=1).quantile(_PICTURES_BELOW)
    factor = _LOGITS_ABOVE / (best.max() - passing)
    for layer in layers:
        layer.weight *= factor
        bias = bias_of(layer)
        bias.copy_((bias - passing) * factor + math.log(_THRESHOLD / (1 - _THRESHOLD)))


def forget_pictures(layers: Sequence[nn.Conv2d], images: Tensor, network: nn.Module) -> None:
    """Side effect: no layer answers to what a whole picture has in common, so that no picture gets all the boxes."""
    taken = _while_running(layers, images, network)
    for layer in layers:
        features = taken[layer][0].mean((2, 3))  # (n, channels)
        directions = torch.linalg.svd(features - features.mean(0), full_matrices=False).Vh[: len(features) - 1]
        weight = layer.weight.flatten(1)
        layer.weight.copy_((weight - weight @ directions.T @ directions).view_as(layer.weight))


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The last layers of heads have one."""
    assert layer.bias is not None
    return layer.bias


def spread_layers(
    layers: Sequence[nn.Conv2d | nn.Linear], images: Tensor, network: nn.Module, spread: float
) -> list[Tensor]:
    """Side effect: each layer's outputs have this deviation, and every channel the mean 0. Returns them."""
    ran = _while_running(layers, images, network)
    outputs = []
    for layer in layers:
        found = ran[layer][1]
        over = [axis for axis in range(found.ndim) if axis != 1]
        mean = found.mean(over, keepdim=True)
        factor = spread / (found - mean).std()
        layer.weight *= factor
        if layer.bias is not None:
            layer.bias.copy_((layer.bias - mean.flatten()) * factor)
        outputs.append((found - mean) * factor)
    return outputs


def _while_running(
    layers: Sequence[nn.Module], images: Tensor, network: nn.Module
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """What each layer took and gave."""
    ran: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ran[module] = inputs[0], output

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    network(images)
    for each in hooks:
        each.remove()
    return ran
