"""Fuzzing's targets take their own seeds, whole and damaged, where atheris is not installed, too."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import TARGET_NAMES
from tests.fuzz.targets import TARGETS


def test_every_target_has_its_share_of_the_time() -> None:
    assert tuple(TARGETS) == TARGET_NAMES


@pytest.mark.parametrize("name", TARGETS)
def test_target_takes_its_seeds_whole_and_damaged(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()

    assert seeds
    for seed in (b"", *seeds):
        for data in (seed, seed[: len(seed) // 2], seed[1:], seed + b"\xff"):
            target.run(data)
