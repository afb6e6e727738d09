"""Counts of a rollout go to all servers of a repository: summed, of one generation, and never by a damaged file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from saccade.service.supervisor.rollout.decide import Arm
from saccade.service.supervisor.rollout.shared_counts import exchanged, this_server

MODEL = "digits"


def arms(answered: int) -> dict[int, Arm]:
    return {
        1: Arm(answered=10 * answered, latencies=Counter({90: 10 * answered})),
        2: Arm(answered, 1, Counter({90: answered - 1, 95: 1}), 5, 4.5),
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / MODEL).mkdir()
    return tmp_path


def files(repository: Path) -> list[str]:
    return sorted(path.name for path in (repository / MODEL / ".serving" / "counts").iterdir())


def test_each_gets_the_sum_of_the_others(repository: Path) -> None:
    assert exchanged(repository, MODEL, 4, "a.1", arms(10)) == {}
    exchanged(repository, MODEL, 4, "b.1", arms(20))

    found = exchanged(repository, MODEL, 4, "c.1", {})

    assert found[1] == Arm(answered=300, latencies=Counter({90: 300}))
    assert found[2] == Arm(30, 2, Counter({90: 28, 95: 2}), 10, 9.0)
    assert exchanged(repository, MODEL, 4, "a.1", arms(11)) == arms(20)


def test_another_generation_counts_nothing_and_an_older_one_goes(repository: Path) -> None:
    exchanged(repository, MODEL, 4, "a.1", arms(10))
    exchanged(repository, MODEL, 6, "c.1", arms(30))

    assert exchanged(repository, MODEL, 5, "b.1", arms(20)) == {}
    assert files(repository) == ["5-b.1.json", "6-c.1.json"]
    assert exchanged(repository, MODEL, 6, "b.1", {}) == arms(30)
    assert files(repository) == ["6-b.1.json", "6-c.1.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"arms": {"2": {"answered": -5, "errors": 0, "latencies": {}, "compared": 0, "agreement": 0.0}}}',
        b'{"arms": {"2": {"answered": 5}}}',
        b" " * 300_000,
    ],
)
def test_damaged_file_counts_nothing(repository: Path, content: bytes) -> None:
    exchanged(repository, MODEL, 4, "a.1", arms(10))
    (repository / MODEL / ".serving" / "counts" / "4-b.1.json").write_bytes(content)
    (repository / MODEL / ".serving" / "counts" / "notes.txt").write_bytes(b"mine")

    assert exchanged(repository, MODEL, 4, "c.1", {}) == arms(10)


def test_link_in_place_of_the_folder_is_not_followed(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (repository / MODEL / ".serving").symlink_to(elsewhere)

    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        exchanged(repository, MODEL, 4, "a.1", arms(10))
    assert [*elsewhere.iterdir()] == []


def test_servers_have_names_that_files_may_have() -> None:
    assert this_server().replace(".", "").replace("-", "").isalnum()
