"""Finds pictures of one split in another: equal pixels, or nearly equal ones: saved again, mirrored, turned by half.

Near equality is judged by thumbnails of 16 x 16 x 3. A picture that was saved again differs from its original by JPEG
noise, and from every other picture by much more. A pair therefore counts when its difference is small and clearly
smaller than that of the next nearest picture. It also counts when the difference is as small as noise, because the next
picture may be close as well, as frames of a film are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NOISE_RMS, _NOISE_PEAK = 2.0, 10.0  # in levels: what JPEG of quality 50 changes in a photograph
_SMALL_RMS = 8.0  # in levels: what JPEG of quality 50 changes in a noisy picture of 40 pixels
_CLEARLY = 0.6  # largest ratio to the difference of the next nearest picture
_BLOCK = 1024  # pictures of either split that are compared at once, so that memory does not grow with the splits

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Digests and thumbnails of a split's pictures, in one order."""

    paths: Sequence[Path]
    digests: Sequence[bytes]
    thumbnails: NDArray[np.uint8]  # (n, 16, 16, 3)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many pictures of the first split are also in the second, and the first such pair."""

    equal: int
    near: int  # number of near copies, without the equal ones
    equal_pair: tuple[Path, Path] | None
    near_pair: tuple[Path, Path] | None


def overlap_of(first: Fingerprints, second: Fingerprints) -> Overlap:
    place_by_digest = {digest: index for index, digest in enumerate(second.digests)}
    equal = {index: place_by_digest[each] for index, each in enumerate(first.digests) if each in place_by_digest}
    near = {index: place for index, place in _near_pairs(first.thumbnails, second.thumbnails) if index not in equal}
    return Overlap(len(equal), len(near), _pair(first, second, equal), _pair(first, second, near))


def repeated(prints: Fingerprints) -> int:
    """Returns how many pictures repeat an earlier one of the split."""
    return len(prints.digests) - len(set(prints.digests))


def _pair(first: Fingerprints, second: Fingerprints, found: dict[int, int]) -> tuple[Path, Path] | None:
    if not found:
        return None
    index = min(found)
    return first.paths[index], second.paths[found[index]]


def _near_pairs(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Returns positions in `first` and `second` of pictures that are nearly equal."""
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(first), _BLOCK):
        block = first[start : start + _BLOCK]
        turned = [_rows(each) for each in (block, block[:, :, ::-1], block[:, ::-1], block[:, ::-1, ::-1])]
        place, best, runner_up = _nearest(turned, second)
        is_clear = best <= _CLEARLY * runner_up
        for row in np.flatnonzero((best <= _SMALL_RMS) & (is_clear | (best <= _NOISE_RMS))):
            other = _rows(second[place[row]][None])
            peak = min(np.abs(each[row] - other).max() for each in turned)
            if is_clear[row] or peak <= _NOISE_PEAK:
                pairs.append((start + int(row), int(place[row])))
    return pairs


def _nearest(
    turned: Sequence[FloatArray], second: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Returns the picture nearest to any form of each row, and the RMS differences, in levels, of it and the next."""
    count = len(turned[0])
    rows, place = np.arange(count), np.zeros(count, np.int64)
    best, runner_up = np.full(count, np.inf, np.float32), np.full(count, np.inf, np.float32)
    for low in range(0, len(second), _BLOCK):
        others = _rows(second[low : low + _BLOCK])
        squared = np.minimum.reduce([_squared_distances(each, others) for each in turned])
        nearest = squared.argmin(1)
        found = squared[rows, nearest]
        squared[rows, nearest] = np.inf
        is_nearer = found < best
        runner_up = np.where(is_nearer, np.minimum(best, squared.min(1)), np.minimum(runner_up, found))
        place = np.where(is_nearer, low + nearest, place)
        best = np.minimum(best, found)
    values = turned[0].shape[1]
    return place, np.sqrt(np.maximum(best, 0) / values), np.sqrt(np.maximum(runner_up, 0) / values)


def _rows(thumbnails: NDArray[np.uint8]) -> FloatArray:
    return thumbnails.reshape(len(thumbnails), -1).astype(np.float32)


def _squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Returns the squared distance of every pair, (n, m)."""
    result: FloatArray = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2.0 * (first @ second.T)
    return result
