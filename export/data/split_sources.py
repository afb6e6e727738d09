"""Decides where each split's pictures come from; a folder named like a split is never taken for a label."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saccade.export.data.image_split import Split
from saccade.export.errors import DataRefused

SPLIT_NAMES: Mapping[str, Split] = {
    "calibration": "calibration",
    "test": "test",
    "train": "train",
    "tuning": "tuning",
    "val": "tuning",
    "valid": "tuning",
    "validation": "tuning",
}


@dataclass(frozen=True, slots=True)
class SplitSource:
    """A folder, or the part of it whose files' SHA-256 starts with a byte in low..high-1."""

    folder: str  # the folder's name; "" for an undivided set
    low: int = 0
    high: int = 256

    @property
    def is_whole(self) -> bool:
        return (self.low, self.high) == (0, 256)

    def holds(self, encoded: bytes) -> bool:
        """Tells whether a file belongs here; equal files always belong to the same split."""
        return self.is_whole or self.holds_byte(hashlib.sha256(encoded).digest()[0])

    def holds_byte(self, first_byte: int) -> bool:
        return self.low <= first_byte < self.high

    def shares_with(self, other: SplitSource) -> bool:
        """Tells whether one picture may belong to both, because the recipe uses a folder twice on purpose."""
        return self.folder == other.folder and max(self.low, other.low) < min(self.high, other.high)

    def __str__(self) -> str:
        share = "" if self.is_whole else f"{(self.high - self.low) / 256:.0%} of "
        return f"{share}{self.folder or 'the whole set'}"


UNDIVIDED: Mapping[Split, SplitSource] = {
    "calibration": SplitSource("", 0, 51),  # calibration and tuning get a fifth each, and the test split gets the rest
    "tuning": SplitSource("", 51, 102),
    "test": SplitSource("", 102, 256),
}


def split_folder_names(names: Sequence[str], labels: Sequence[str], where: str) -> dict[Split, str]:
    """Returns which of the names are splits. Raises DataRefused for two names of one split.

    A label may also be called `train`: if it is the only such folder, it is taken for the label.
    """
    given: dict[Split, str] = {}
    for name in names:
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            continue
        if split in given:
            raise DataRefused(f"{where} has both {given[split]!r} and {name!r}, which name one split: keep one of them")
        given[split] = name
    return {} if len(given) == 1 and set(given.values()) <= set(labels) else given


def completed_sources(given: Mapping[Split, str], where: str) -> dict[Split, SplitSource]:
    """Adds sources for splits without a folder. Raises DataRefused when no unseen pictures are left to measure on."""
    sources = {split: SplitSource(folder) for split, folder in given.items()}
    if "test" not in sources:
        if "tuning" not in sources:
            raise DataRefused(
                f"{where} has only {', '.join(sorted(given.values()))}: add a folder `test` with pictures that the "
                "network has not learned from"
            )
        folder = given["tuning"]
        sources |= {"tuning": SplitSource(folder, 0, 128), "test": SplitSource(folder, 128, 256)}
    missing = [split for split in ("calibration", "tuning") if split not in sources]
    if missing and "train" not in sources:
        raise DataRefused(f"{where} lacks `{missing[0]}` and has no `train` to draw it from: add a folder {missing[0]}")
    # The tuning split chooses between files, so it must not hold pictures that are trained or calibrated on.
    if "tuning" in missing:
        folder = given["train"]
        sources |= {"tuning": SplitSource(folder, 0, 51), "train": SplitSource(folder, 51, 256)}
    if "calibration" in missing:
        sources["calibration"] = sources["train"]
    return sources
