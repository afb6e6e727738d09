"""The folder of disagreements: few per pair, the worst ones, for a week."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from saccade.service.repository import confined_files
from saccade.service.repository.disagreements import KEPT, Disagreement, disagreements, keep_disagreement

NOW_S = 1_800_000_000.0


def found(agreement: float, candidate: int = 2) -> Disagreement:
    return Disagreement(
        model="digits",
        stable=1,
        candidate=candidate,
        request_id=f"at {agreement}",
        at="2026-01-01T00:00:00+00:00",
        agreement=agreement,
        figures={"top1": agreement},
        stable_said="7 0.900",
        candidate_said="1 0.500",
    )


def test_worst_are_kept_and_the_floor_falls(tmp_path: Path) -> None:
    floors = [keep_disagreement(tmp_path, found(0.9 - 0.02 * number), b"picture", NOW_S) for number in range(30)]

    kept = disagreements(tmp_path, "digits", NOW_S)
    assert len(kept) == KEPT
    assert max(each.agreement for each in kept) < 0.9 - 0.02 * 9
    assert floors[0] == 1.0
    assert floors[-1] < floors[KEPT - 1] < 1.0
    assert len([*(tmp_path / ".shadow" / "digits" / "1-2").iterdir()]) == 2 * KEPT


def test_expired_ones_are_neither_shown_nor_left(tmp_path: Path) -> None:
    keep_disagreement(tmp_path, found(0.1), None, NOW_S)
    week_later_s = NOW_S + 8 * 86_400

    assert disagreements(tmp_path, "digits", week_later_s) == []
    keep_disagreement(tmp_path, found(0.5), None, week_later_s)
    assert [each.agreement for each in disagreements(tmp_path, "digits", week_later_s)] == [0.5]
    assert len([*(tmp_path / ".shadow" / "digits" / "1-2").iterdir()]) == 1


def test_newest_candidate_comes_first_and_damaged_files_are_passed_over(tmp_path: Path) -> None:
    for candidate in (2, 10):
        keep_disagreement(tmp_path, found(0.5, candidate), None, NOW_S)
    (tmp_path / ".shadow" / "digits" / "1-2" / f"0.1-{int(NOW_S)}-x.json").write_text("{")

    assert [each.candidate for each in disagreements(tmp_path, "digits", NOW_S)] == [10, 2]


def test_full_volume_is_an_error_that_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: int, name: str, content: bytes) -> None:
        if ".json" in name:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=directory))  # a name takes no room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(directory, name, content)

    real = confined_files.write_file
    keep_disagreement(tmp_path, found(0.5), b"picture", NOW_S)
    monkeypatch.setattr(confined_files, "write_file", full)

    with pytest.raises(OSError, match="No space left"):
        keep_disagreement(tmp_path, found(0.1), b"picture", NOW_S)

    assert len([*(tmp_path / ".shadow" / "digits" / "1-2").iterdir()]) == 2
    assert [each.agreement for each in disagreements(tmp_path, "digits", NOW_S)] == [0.5]


def test_clock_that_was_set_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    keep_disagreement(tmp_path, found(0.1), None, NOW_S + 365 * 86_400)

    keep_disagreement(tmp_path, found(0.2), None, NOW_S)

    assert [each.agreement for each in disagreements(tmp_path, "digits", NOW_S)] == [0.2]
    assert len([*(tmp_path / ".shadow" / "digits" / "1-2").iterdir()]) == 1
