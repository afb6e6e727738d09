"""Listing a repository: names only, nothing but versions, and no neighbour suffers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.repository.open import list_repository, list_versions, newest_versions


def keys_in(repository: Path) -> list[VersionKey]:
    return [found.key for found in list_versions(repository)]


def make(repository: Path, *names: str) -> None:
    for name in names:
        (repository / name).mkdir(parents=True)


def test_versions_are_listed_by_model_and_number(tmp_path: Path) -> None:
    make(tmp_path, "b/1", "a/10", "a/9")

    assert keys_in(tmp_path) == [VersionKey("a", 9), VersionKey("a", 10), VersionKey("b", 1)]


def test_newest_version_of_every_model_goes_by_number_not_by_name(tmp_path: Path) -> None:
    make(tmp_path, "a/9", "a/10", "b/1")

    assert [found.key for found in newest_versions(tmp_path)] == [VersionKey("a", 10), VersionKey("b", 1)]


@pytest.mark.parametrize("name", ["a/.building-1", ".samples/1", "a/latest", "a/01", "a/-1", "a/1.0", "a/²"])
def test_what_is_not_a_version_is_ignored(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)

    assert keys_in(tmp_path) == []


def test_file_with_a_number_for_a_name_is_ignored(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "a" / "1").write_bytes(b"")
    (tmp_path / "2").write_bytes(b"")

    assert keys_in(tmp_path) == []


def test_missing_repository_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"cannot read the model repository .*SACCADE_REPOSITORY"):
        list_versions(tmp_path / "absent")


def test_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    make(tmp_path, "a/1/engines")
    file = tmp_path / "a" / "1" / "engines" / "plan"
    file.write_bytes(b"1")
    (before,) = list_versions(tmp_path)
    (again,) = list_versions(tmp_path)
    file.write_bytes(b"12")
    (after,) = list_versions(tmp_path)

    assert before.fingerprint == again.fingerprint
    assert before.fingerprint != after.fingerprint


def test_number_that_no_client_can_hold_is_refused_and_hides_nothing(tmp_path: Path) -> None:
    make(tmp_path, "digits/7", "digits/20261129013200123456", "digits/9223372036854775807", "digits/" + "9" * 255)

    listing = list_repository(tmp_path)

    assert listing.of("digits") == [7, 9223372036854775807]
    assert [each.name for each in listing.refused] == ["20261129013200123456", "9" * 255]
    assert all("up to 9223372036854775807" in each.reason for each in listing.refused)
    assert [found.key.version for found in newest_versions(tmp_path)] == [9223372036854775807]


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
def test_directory_that_cannot_be_listed_does_not_hide_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    # given a volume's lost+found, or a model that is removed between two looks (root may read all, so it is played)
    make(tmp_path, "digits/1", "lost+found")
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":
            raise error(13, "no")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)

    assert keys_in(tmp_path) == [VersionKey("digits", 1)]


def test_storage_error_is_not_mistaken_for_an_empty_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "digits/1")
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "digits":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)

    with pytest.raises(RepositoryError, match="Input/output error"):
        list_versions(tmp_path)


def test_a_name_that_is_not_utf8_is_refused_with_its_reason(tmp_path: Path) -> None:
    make(tmp_path, "good/1")
    os.makedirs(os.fsencode(tmp_path) + b"/bad\xff/1")

    listing = list_repository(tmp_path)

    assert [found.key for found in listing.versions] == [VersionKey("good", 1)]
    assert [(each.model, each.name) for each in listing.refused] == [("bad\\xff", "1")]
    assert "not UTF-8" in listing.refused[0].reason


def test_loops_of_links_hide_no_other_version(tmp_path: Path) -> None:
    make(tmp_path, "a/1", "b/1")
    for link in ("ring", "a/2", "a/1/manifest.json"):
        (tmp_path / link).symlink_to(Path(link).name)
    (tmp_path / "a/1/up").symlink_to("..")

    assert keys_in(tmp_path) == [VersionKey("a", 1), VersionKey("b", 1)]
