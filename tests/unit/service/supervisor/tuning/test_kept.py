"""Kept results: what others put in their place keeps no server from starting, and two that write harm nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.service.supervisor.tuning.kept import keep, known


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / ".tuning" / "ab.json"


def test_what_was_kept_is_known_and_nothing_else_lies_there(place: Path) -> None:
    keep(place, b"one")
    keep(place, b"two")

    assert known(place, bytes.decode) == "two"
    assert list(place.parent.iterdir()) == [place]


def link_to_endless(place: Path) -> None:
    place.symlink_to("/dev/zero")


def huge(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("put", [os.mkfifo, link_to_endless, huge, Path.mkdir, lambda place: None])
def test_what_is_no_small_file_is_not_known(place: Path, put: Callable[[Path], None]) -> None:
    place.parent.mkdir()
    put(place)

    assert known(place, bytes.decode) is None


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError])
def test_a_result_that_cannot_be_read_is_not_known(place: Path, error: type[Exception]) -> None:
    def read(content: bytes) -> bytes:
        raise error

    keep(place, b"one")

    assert known(place, read) is None


def test_a_server_that_is_writing_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process ids repeat among containers, so names are drawn; where even these meet, the first one writes."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "drawn")
    place.parent.mkdir()
    (place.parent / "ab.drawn").write_bytes(b"half")

    keep(place, b"whole")

    assert (place.parent / "ab.drawn").read_bytes() == b"half"
    assert not place.exists()
