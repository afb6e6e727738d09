"""Computes 2:4 masks: of every four consecutive input channels (axis 1) of a weight, at most two are kept.

Weights are (output channels, input channels, ...); each kernel position behind axis 1 is masked on its own, as sparse
tensor cores need it for a convolution.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

GROUP, KEPT = 4, 2


def best_two_of_four(scores: Tensor) -> Tensor:
    """Returns the bool mask that keeps the two largest of every four scores along axis 1; on a tie the earlier ones."""
    quads = _quads(scores)
    order = quads.argsort(dim=2, descending=True, stable=True)
    keep = torch.zeros_like(quads, dtype=torch.bool).scatter_(2, order[:, :, :KEPT], True)
    return keep.reshape(scores.shape)


def magnitude_mask(weight: Tensor) -> Tensor:
    return best_two_of_four(weight.detach().abs())


def random_mask(weight: Tensor, seed: int) -> Tensor:
    """Keeps a random two of every four: the baseline that every method must beat."""
    return best_two_of_four(torch.rand(weight.shape, generator=Generator().manual_seed(seed)))


def kept_magnitude(weight: Tensor) -> float:
    """Returns the share of sum |w| that the magnitude mask keeps."""
    magnitude = weight.detach().abs().double()
    kept = (_quads(magnitude).topk(KEPT, 2).values).sum()
    return float(kept / magnitude.sum().clamp_min(1e-30))


def has_two_four(weight: Tensor) -> bool:
    """Returns whether every four consecutive input channels hold at least two zeros at each kernel position."""
    return bool(((_quads(weight) != 0).sum(2) <= KEPT).all())


def _quads(tensor: Tensor) -> Tensor:
    """Reshapes a weight to (output, input / 4, 4, rest)."""
    if tensor.ndim < 2 or tensor.shape[1] % GROUP:
        raise ValueError(f"2:4 needs a multiple of four input channels, the weight is {tuple(tensor.shape)}")
    return tensor.reshape(tensor.shape[0], tensor.shape[1] // GROUP, GROUP, -1)
