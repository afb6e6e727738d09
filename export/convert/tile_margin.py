"""Measures how far inwards what lies beyond the border of a tile changes its answer, and so how tiles must overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.vision.tiles import tile_grid

UInt8Array = NDArray[np.uint8]
# Takes pictures (n, height, width, 3); returns pictures or depths (n, height x scale, width x scale, ...).
Answer = Callable[[UInt8Array], NDArray[Any]]
_VISIBLE = 0.5 / 255.0  # of the range: smaller changes are rounded away, as a rule
_DIFFERENT = 1e-3  # share of numbers that may differ by a level between two tiles
_BEYOND = (0, 255)  # colours; and noise


def tile_margin(answer: Answer, width: int, height: int, scale: int, *, is_depth: bool) -> int:
    """Returns the largest distance in pixels of the picture at which a change is seen; half a side: at any distance.

    Two pictures that are equal on one side of their middle and different on the other show it, on all four sides. Half
    a side also stands for a network whose answer to a pixel depends on where in the tile it lies.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    waves = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    noise, other = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    worst = 0
    for picture in (noise, waves):
        plain = answer(picture[np.newaxis])[0]
        span = max(float(np.ptp(plain)), 1e-12) if is_depth else 1.0
        for axis in (0, 1):
            for is_later in (True, False):
                for beyond in (*(np.full_like(picture, colour) for colour in _BEYOND), other):
                    changed = _with_half(picture, beyond, axis, is_later=is_later)
                    gap = np.abs(answer(changed[np.newaxis])[0] - plain) > _VISIBLE * span
                    worst = max(worst, _reach(gap, axis, picture.shape[axis] // 2 * scale, is_later=is_later))
    margin, most = -(-worst // scale), max(width, height) // 2
    if 4 * margin > min(width, height):
        return margin
    spec = PreprocessSpec(width=width, height=height, fit="tile", margin=margin)
    return margin if _is_alike_in_neighbours(answer, spec, scale, is_depth=is_depth) else most


def _is_alike_in_neighbours(answer: Answer, spec: PreprocessSpec, scale: int, *, is_depth: bool) -> bool:
    """Tells whether two tiles that a server would cut answer alike where they overlap, but for the margins."""
    margin = spec.margin or 0
    size = (2 * spec.height, 2 * spec.width, 3)
    picture = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    grid = tile_grid(size[1], size[0], spec)
    first = answer(picture[np.newaxis, : spec.height, : spec.width])[0]
    span = max(float(np.ptp(first)), 1e-12) if is_depth else 1.0
    for axis, (shift, side) in enumerate(((grid.tops[1], spec.height), (grid.lefts[1], spec.width))):
        moved = np.roll(picture, -shift, axis)[: spec.height, : spec.width]
        shared = np.arange((shift + margin) * scale, (side - margin) * scale)
        gap = first.take(shared, axis) - answer(moved[np.newaxis])[0].take(shared - shift * scale, axis)
        if (np.abs(gap) > 2 * _VISIBLE * span).mean() > _DIFFERENT:
            return False
    return True


def _with_half(picture: UInt8Array, beyond: UInt8Array, axis: int, *, is_later: bool) -> UInt8Array:
    middle = picture.shape[axis] // 2
    half = slice(middle, None) if is_later else slice(0, middle)
    changed, place = picture.copy(), (half,) if axis == 0 else (slice(None), half)
    changed[place] = beyond[place]
    return changed


def _reach(gap: NDArray[np.bool_], axis: int, middle: int, *, is_later: bool) -> int:
    """How far from the middle the unchanged half differs."""
    lines = np.flatnonzero(gap.any(axis=tuple(other for other in range(gap.ndim) if other != axis)))
    if is_later:
        kept = lines[lines < middle]
        return middle - int(kept.min()) if kept.size else 0
    kept = lines[lines >= middle]
    return int(kept.max()) - middle + 1 if kept.size else 0
