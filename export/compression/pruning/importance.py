"""Tells how far a network's answers move when a channel leaves; no labels are needed.

To first order they move by the gradient of a gate on the channel, which is the sum of weight times gradient over the
weights that read it. Its square, averaged over images and random signs of the outputs, is Fisher pruning (Theis et al.,
arXiv 1801.05787) with the network's own answers as the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from saccade.export.compression.pruning.channels import PrunableGroup
from saccade.export.compression.pruning.narrowing import reading_axes
from saccade.export.compression.recovery import raw_module
from saccade.export.compression.recovery_loss import Meaning
from saccade.export.compression.traced_network import TracedNetwork

Gates = Mapping[tuple[str, int], NDArray[np.float64]]  # (draws, channels) by a weight's name and the axis that reads
_DRAWS = 2  # random signs per image
_LEAST = 1e-6  # probabilities are kept this far from 0 and 1, where their scale has no slope


@torch.enable_grad()
def gate_gradients(network: TracedNetwork, images: Tensor) -> Gates:
    """Returns the gradients of gates on every channel that a weight reads, for each image and draw of signs."""
    module, signs = raw_module(network.module, network.first_raw), Generator().manual_seed(0)
    parameters = dict(module.named_parameters())
    axes = [place for place in reading_axes(module) if place[0] in parameters]
    weights = {name: parameters[name].requires_grad_(True) for name, _ in axes}
    found: dict[tuple[str, int], list[NDArray[np.float64]]] = {place: [] for place in axes}
    for image in images[:, None] if weights else ():
        outputs = list(_even(module(image), network.meaning))
        for _ in range(_DRAWS):
            drawn = [(torch.randint(0, 2, each.shape, generator=signs) * 2 - 1) * each for each in outputs]
            total = torch.stack([each.sum() for each in drawn]).sum()
            slopes = torch.autograd.grad(total, list(weights.values()), retain_graph=True, materialize_grads=True)
            moved = {name: weights[name].detach() * slope for name, slope in zip(weights, slopes, strict=True)}
            for name, axis in axes:
                others = [other for other in range(moved[name].ndim) if other != axis]
                found[name, axis].append(moved[name].double().sum(others).numpy())
    return {place: np.stack(rows) for place, rows in found.items() if rows}


def importances(gates: Gates, group: PrunableGroup) -> NDArray[np.float64]:
    """Returns for each bundle the mean squared move of the answers, (bundles,)."""
    moved = [gates[place][:, at].sum(2) for place, at in group.positions.items() if place in gates]
    squares: NDArray[np.float64] = np.square(np.sum(moved, 0)).mean(0) if moved else np.zeros(group.size)
    return squares


def _even(outputs: Sequence[Tensor], meaning: Meaning) -> Iterator[Tensor]:
    """Yields the raw outputs on scales on which equal steps are equally easy to tell from noise."""
    match meaning:
        case "distribution":
            yield 2.0 * outputs[0].float().softmax(1).clamp_min(_LEAST).sqrt()
        case "scored_boxes":
            boxes, scores = outputs[0].float(), outputs[1].float().clamp(_LEAST, 1.0 - _LEAST)
            size = (boxes[..., 2:] - boxes[..., :2]).detach().abs().clamp_min(1.0).repeat(1, 1, 2)
            yield 2.0 * scores.sqrt().asin()
            yield scores.detach().amax(2, keepdim=True).sqrt() * boxes / size
        case "numbers":
            yield from (each / each.detach().square().mean().sqrt().clamp_min(1e-12) for each in outputs)
