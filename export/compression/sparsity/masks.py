"""2:4 masks. Promises: along axis 1 (input channels) of a weight, two of four consecutive ones at most, pure functions.

Weights are (output channels, input channels, ...); whatever follows axis 1 (kernel positions) is masked on its own,
which is what sparse tensor cores need of a convolution.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

GROUP, KEPT = 4, 2


def best_two_of_four(scores: Tensor) -> Tensor:
    """The mask (bool, as `scores`) that keeps the two largest of every four along axis 1; earlier ones on a tie."""
    quads = _quads(scores)
    order = quads.argsort(dim=2, descending=True, stable=True)
    keep = torch.zeros_like(quads, dtype=torch.bool).scatter_(2, order[:, :, :KEPT], True)
    return keep.reshape(scores.shape)


def magnitude_mask(weight: Tensor) -> Tensor:
    return best_two_of_four(weight.detach().abs())


def random_mask(weight: Tensor, seed: int) -> Tensor:
    """Two of every four by chance: the baseline that any method must beat."""
    return best_two_of_four(torch.rand(weight.shape, generator=Generator().manual_seed(seed)))


def kept_magnitude(weight: Tensor) -> float:
    """Share of sum |w| that the magnitude mask keeps."""
    magnitude = weight.detach().abs().double()
    kept = (_quads(magnitude).topk(KEPT, 2).values).sum()
    return float(kept / magnitude.sum().clamp_min(1e-30))


def has_two_four(weight: Tensor) -> bool:
    """Whether every four consecutive input channels hold at least two zeros, at each place."""
    return bool(((_quads(weight) != 0).sum(2) <= KEPT).all())


def _quads(tensor: Tensor) -> Tensor:
    """(output, input / 4, 4, rest)."""
    if tensor.ndim < 2 or tensor.shape[1] % GROUP:
        raise ValueError(f"2:4 needs a multiple of four input channels, the weight is {tuple(tensor.shape)}")
    return tensor.reshape(tensor.shape[0], tensor.shape[1] // GROUP, GROUP, -1)
