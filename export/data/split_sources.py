"""Says where each split's pictures come from. Promises: a folder named like a split is never taken for a label."""

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

    folder: str  # as it is named; "" for a set that is not divided
    low: int = 0
    high: int = 256

    @property
    def is_whole(self) -> bool:
        return (self.low, self.high) == (0, 256)

    def holds(self, encoded: bytes) -> bool:
        """Equal files belong to the same split."""
        return self.is_whole or self.holds_byte(hashlib.sha256(encoded).digest()[0])

    def holds_byte(self, first_byte: int) -> bool:
        return self.low <= first_byte < self.high

    def shares_with(self, other: SplitSource) -> bool:
        """Whether one picture may belong to both, because the recipe's folder is used twice on purpose."""
        return self.folder == other.folder and max(self.low, other.low) < min(self.high, other.high)

    def __str__(self) -> str:
        share = "" if self.is_whole else f"{(self.high - self.low) / 256:.0%} of "
        return f"{share}{self.folder or 'the whole set'}"


UNDIVIDED: Mapping[Split, SplitSource] = {
    "calibration": SplitSource("", 0, 51),  # a fifth each to calibrate and to tune, the rest to test
    "tuning": SplitSource("", 51, 102),
    "test": SplitSource("", 102, 256),
}


def split_folder_names(names: Sequence[str], labels: Sequence[str], where: str) -> dict[Split, str]:
    """Which of the names are splits. Raises DataRefused for two names of one split.

    A label may be called `train` too: where that is the only such folder, it is the label's.
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
    """Every split's source, where some are named. Raises DataRefused when nothing unseen is left to measure on."""
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
    if "tuning" in missing:  # it chooses between files, so what is learned or calibrated from must not be in it
        folder = given["train"]
        sources |= {"tuning": SplitSource(folder, 0, 51), "train": SplitSource(folder, 51, 256)}
    if "calibration" in missing:
        sources["calibration"] = sources["train"]
    return sources
