"""Random changes of a training batch, drawn from the given generator alone; truth moves with the pixels."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def recoloured(images: Tensor, rng: Generator) -> Tensor:
    """Images (n, 3, h, w) in 0..1 with channels permuted, colours inverted, contrast and brightness changed."""
    count = len(images)
    order = torch.rand(count, 3, generator=rng).argsort(1)
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    sign = (torch.rand(count, 1, 1, 1, generator=rng) < 0.5).float() * 2 - 1
    gain = 0.75 + 0.5 * torch.rand(count, 3, 1, 1, generator=rng)
    shift = 0.2 * torch.rand(count, 3, 1, 1, generator=rng) - 0.1
    return (images - 0.5).mul_(sign * gain).add_(0.5 + shift).clamp_(0.0, 1.0)


def shifted(images: Tensor, masks: Tensor | None, reach: int, rng: Generator) -> tuple[Tensor, Tensor | None, Tensor]:
    """The whole batch moved by one random offset of up to `reach` pixels, edges repeated.

    Returns the images (n, 3, h, w), the masks (n, h, w) and the offset (2,) in x and y to add to boxes. One offset
    per batch keeps it a plain slice; batches are many.
    """
    offset = torch.randint(-reach, reach + 1, (2,), generator=rng)
    move_x, move_y = int(offset[0]), int(offset[1])
    height, width = images.shape[-2:]
    rows = (torch.arange(height) - move_y).clamp_(0, height - 1)
    columns = (torch.arange(width) - move_x).clamp_(0, width - 1)
    moved = images[:, :, rows][:, :, :, columns]
    moved_masks = None if masks is None else masks[:, rows][:, :, columns]
    return moved, moved_masks, offset
