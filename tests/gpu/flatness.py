"""Whether memory stays flat. Promises: pure; a leak shows, what caches take at first does not."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def growth(samples: Sequence[int]) -> int:
    """The middle of the last third above the middle of the first third, after the first tenth was left out."""
    settled = samples[len(samples) // 10 :]
    third = len(settled) // 3
    if third == 0:
        raise ValueError(f"{len(samples)} samples say nothing about growth; take more cycles")
    return int(median(settled[-third:]) - median(settled[:third]))
