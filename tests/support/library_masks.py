"""Masks of detections as their libraries make them, by torch's own interpolation and without code of ours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def upsampled_masks(
    coefficients: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    boxes: NDArray[np.float32],
    size: tuple[int, int],
) -> NDArray[np.bool_]:
    """What Ultralytics' `process_mask` does: (rows, height, width) at the size of the network's input."""
    if not len(boxes):
        return np.zeros((0, size[1], size[0]), np.bool_)
    surfaces = np.einsum("kc,chw->khw", coefficients, prototypes)
    large = functional.interpolate(torch.from_numpy(surfaces)[None], size[::-1], mode="bilinear")[0].numpy()
    columns, lines = np.arange(size[0]), np.arange(size[1])[:, None]
    return np.stack(
        [
            (mask > 0) & (columns >= x1) & (columns < x2) & (lines >= y1) & (lines < y2)
            for mask, (x1, y1, x2, y2) in zip(large, boxes, strict=True)
        ]
    )
