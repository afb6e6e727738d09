"""Finds pictures of one split in another: equal pixels, or copies saved again, mirrored, turned or brightened.

Near equality is judged by thumbnails of 16 x 16 x 3 in all eight positions. A picture that was saved again differs from
its original by JPEG noise, and from every other picture by much more. A pair therefore counts when its difference is
small and clearly smaller than that of the next nearest picture. It also counts when the difference is as small as
noise, because the next picture may be close as well, as frames of a film are.

Other brightness and contrast are found by the first rule on thumbnails that are brought to one mean and contrast. Parts
of a picture are not found: a crop has another thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.export.data.nearest_pictures import (
    Thumbnails,
    contrasts,
    levels,
    nearest_pictures,
    positions,
    shares_of_contrast,
)

_NOISE_RMS, _NOISE_PEAK = 2.0, 10.0  # in levels: what JPEG of quality 50 changes in a photograph
_SMALL_RMS = 8.0  # in levels: what JPEG of quality 50 changes in a noisy picture of 40 pixels
_SMALL_SHARE = 0.2  # of the contrast: what is left when the brightest tenth of a picture was cut off
_LEAST_CONTRAST = 10.0  # in levels: below it, noise would be enlarged to a picture
_CLEARLY = 0.6  # largest ratio to the difference of the next nearest picture


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Digests and thumbnails of a split's pictures, in one order."""

    paths: Sequence[Path]
    digests: Sequence[bytes]
    thumbnails: Thumbnails


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
    pairs = (*_brightened(first.thumbnails, second.thumbnails), *_saved_again(first.thumbnails, second.thumbnails))
    near = {index: place for index, place in pairs if index not in equal}
    return Overlap(len(equal), len(near), _pair(first, second, equal), _pair(first, second, near))


def near_repeats(prints: Fingerprints) -> tuple[int, tuple[Path, Path] | None]:
    """Returns how many pictures of a split nearly repeat another of it, each counted once, and the first such pair."""
    first_by_digest = {digest: index for index, digest in reversed(tuple(enumerate(prints.digests)))}
    different = np.sort(np.fromiter(first_by_digest.values(), np.int64))
    thumbnails = prints.thumbnails[different]
    found = (*_brightened(thumbnails, thumbnails), *_saved_again(thumbnails, thumbnails))
    near = {int(different[index]): int(different[place]) for index, place in found}
    return len(near), _pair(prints, prints, near)


def _pair(first: Fingerprints, second: Fingerprints, found: dict[int, int]) -> tuple[Path, Path] | None:
    if not found:
        return None
    index = min(found)
    return first.paths[index], second.paths[found[index]]


def _saved_again(first: Thumbnails, second: Thumbnails) -> Iterator[tuple[int, int]]:
    """Yields positions in `first` and `second` of pictures that have nearly the same levels."""
    found = nearest_pictures(first, second, levels, _SMALL_RMS / _CLEARLY)
    is_clear = found.best <= _CLEARLY * found.runner_up
    for row in np.flatnonzero((found.best <= _SMALL_RMS) & (is_clear | (found.best <= _NOISE_RMS))):
        place = found.place[row]
        if is_clear[row] or _least_peak(first[row : row + 1], second[place]) <= _NOISE_PEAK:
            yield int(row), int(place)


def _least_peak(picture: Thumbnails, other: Thumbnails) -> float:
    """Returns the largest difference of a pixel, in the position where it is least."""
    return min(float(np.abs(each - other).max()) for each in positions(levels(picture)))


def _brightened(first: Thumbnails, second: Thumbnails) -> Iterator[tuple[int, int]]:
    """Yields positions in `first` and `second` of pictures that differ little but for brightness and contrast."""
    rows = np.flatnonzero(contrasts(first) >= _LEAST_CONTRAST)
    columns = rows if first is second else np.flatnonzero(contrasts(second) >= _LEAST_CONTRAST)
    some = first[rows]
    others = some if first is second else second[columns]
    found = nearest_pictures(some, others, shares_of_contrast, _SMALL_SHARE / _CLEARLY)
    for row in np.flatnonzero((found.best <= _SMALL_SHARE) & (found.best <= _CLEARLY * found.runner_up)):
        yield int(rows[row]), int(columns[found.place[row]])
