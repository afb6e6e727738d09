"""Makes batches of augmented images for recovery; a batch depends on the seed and the step alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

_LEAST_CROP = 0.75  # smallest crop, as a share of each side
_GAIN, _SHIFT = 0.25, 20.0  # largest change of contrast around the middle, and of brightness in levels
_MIXED_SHARE = 0.5  # share of the batches that blend pairs of images


def changed_batch(
    images: NDArray[np.uint8], step: int, batch_size: int, seed: int, mixes: bool
) -> tuple[Tensor, Tensor]:
    """Returns images (batch, height, width, 3) uint8 for this step, and the rows they were made from.

    A teacher answers for whatever is shown, so images are cropped, recoloured and, where `mixes`, blended in pairs:
    mixup (Zhang et al., arXiv 1710.09412).
    """
    rng = Generator().manual_seed(seed * 1_000_003 + step)
    rows = torch.randint(0, len(images), (batch_size,), generator=rng)
    batch = torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2).float()
    batch = _cropped(batch, rng)
    gain = 1.0 + _GAIN * (2.0 * torch.rand(batch_size, 1, 1, 1, generator=rng) - 1.0)
    shift = _SHIFT * (2.0 * torch.rand(batch_size, 3, 1, 1, generator=rng) - 1.0)
    batch = (batch - 127.5) * gain + 127.5 + shift
    if mixes and float(torch.rand((), generator=rng)) < _MIXED_SHARE:
        share = torch.rand(batch_size, 1, 1, 1, generator=rng)
        batch = share * batch + (1.0 - share) * batch.flip(0)
    return batch.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(), rows


def _cropped(batch: Tensor, rng: Generator) -> Tensor:
    """Cuts one random rectangle out of the whole batch and enlarges it to full size."""
    height, width = batch.shape[-2:]
    share = _LEAST_CROP + (1.0 - _LEAST_CROP) * torch.rand(2, generator=rng)
    rows, columns = max(1, int(height * share[0])), max(1, int(width * share[1]))
    top = int(torch.randint(0, height - rows + 1, (), generator=rng))
    left = int(torch.randint(0, width - columns + 1, (), generator=rng))
    part = batch[:, :, top : top + rows, left : left + columns]
    return functional.interpolate(part, (height, width), mode="bilinear", align_corners=False)
