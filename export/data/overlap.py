"""Finds pictures of one split in another. Promises: equal by pixels, or nearly: saved again, or mirrored.

Nearly equal is judged by thumbnails of 16 x 16 x 3. A picture that was saved again differs from its original by JPEG's
noise, and from every other picture by much more; so a pair counts when its difference is small and clearly smaller than
that of the next nearest picture, or as small as noise (then the next may be near too, as in frames of a film).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NOISE_RMS, _NOISE_PEAK = 2.0, 10.0  # levels; JPEG of quality 50 on a photograph
_SMALL_RMS = 8.0  # JPEG of quality 50 on a noisy picture of 40 pixels
_CLEARLY = 0.6  # of the next nearest picture's difference
_COMPARED_AT_ONCE = 4_000_000  # pairs, of 4 bytes each in a few arrays


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Of a split's pictures, in one order."""

    paths: Sequence[Path]
    digests: Sequence[bytes]
    thumbnails: NDArray[np.uint8]  # (n, 16, 16, 3)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pictures of the first split that are in the second too; the pair is the first one found."""

    equal: int
    near: int  # without the equal ones
    equal_pair: tuple[Path, Path] | None
    near_pair: tuple[Path, Path] | None


def overlap_of(first: Fingerprints, second: Fingerprints) -> Overlap:
    place_by_digest = {digest: index for index, digest in enumerate(second.digests)}
    equal = {index: place_by_digest[each] for index, each in enumerate(first.digests) if each in place_by_digest}
    near = {index: place for index, place in _near_pairs(first.thumbnails, second.thumbnails) if index not in equal}
    return Overlap(len(equal), len(near), _pair(first, second, equal), _pair(first, second, near))


def repeated(prints: Fingerprints) -> int:
    """How many pictures are in the split already."""
    return len(prints.digests) - len(set(prints.digests))


def _pair(first: Fingerprints, second: Fingerprints, found: dict[int, int]) -> tuple[Path, Path] | None:
    if not found:
        return None
    index = min(found)
    return first.paths[index], second.paths[found[index]]


def _near_pairs(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[tuple[int, int]]:
    if not len(first) or not len(second):
        return []
    pairs: list[tuple[int, int]] = []
    others = _rows(second)
    squares = (others**2).sum(1)
    step = max(1, _COMPARED_AT_ONCE // len(second))
    for start in range(0, len(first), step):
        block = first[start : start + step]
        straight, mirrored = _rows(block), _rows(block[:, :, ::-1])
        differences = np.minimum(_squared(straight, others, squares), _squared(mirrored, others, squares))
        nearest = differences.argmin(1)
        rms = np.sqrt(np.clip(differences, 0.0, None) / others.shape[1])
        best = rms[np.arange(len(block)), nearest]
        rms[np.arange(len(block)), nearest] = np.inf
        is_clear = (best <= _SMALL_RMS) & (best <= _CLEARLY * rms.min(1, initial=np.inf))
        for row in np.flatnonzero((best <= _SMALL_RMS) & (is_clear | (best <= _NOISE_RMS))):
            other = others[nearest[row]]
            peak = min(np.abs(straight[row] - other).max(), np.abs(mirrored[row] - other).max())
            if is_clear[row] or peak <= _NOISE_PEAK:
                pairs.append((start + int(row), int(nearest[row])))
    return pairs


def _rows(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    return thumbnails.reshape(len(thumbnails), -1).astype(np.float32)


def _squared(
    first: NDArray[np.float32], second: NDArray[np.float32], squares: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sums of squared differences of every pair."""
    result: NDArray[np.float32] = (first**2).sum(1)[:, None] + squares - 2.0 * (first @ second.T)
    return result
