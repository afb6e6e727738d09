"""The keys in force are those of the file as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.api.key_watch import KeyWatch
from saccade.service.ipc.api_keys import ApiKeys, Forbidden, Scope


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("first-key\nsecond-key\n", "utf-8")
    return path


def accepted(keys: ApiKeys, *names: str) -> list[str]:
    found = []
    for name in names:
        try:
            keys.ensure(f"Bearer {name}".encode(), Scope.PREDICT)
            found.append(name)
        except Forbidden:
            pass
    return found


def test_key_is_revoked_and_another_added_without_a_restart(path: Path) -> None:
    keys = ApiKeys.from_file(path)
    watch = KeyWatch(path, keys)
    watch.look()
    path.write_text("second-key\nthird-key\n", "utf-8")
    watch.look()

    assert accepted(keys, "first-key", "second-key", "third-key") == ["second-key", "third-key"]


def test_mistake_in_one_line_does_not_keep_a_revoked_key(path: Path) -> None:
    keys = ApiKeys.from_file(path)
    path.write_text("second-key\nthird-key scopes=everything\n", "utf-8")
    KeyWatch(path, keys).look()

    assert accepted(keys, "first-key", "second-key", "third-key") == ["second-key"]


def test_emptied_file_accepts_nobody(path: Path) -> None:
    keys = ApiKeys.from_file(path)
    path.write_text("", "utf-8")
    KeyWatch(path, keys).look()

    assert accepted(keys, "first-key", "second-key") == []


def test_file_that_is_gone_for_a_moment_takes_no_key_away(path: Path) -> None:
    keys = ApiKeys.from_file(path)
    path.unlink()
    KeyWatch(path, keys).look()

    assert accepted(keys, "first-key", "second-key") == ["first-key", "second-key"]


def test_secret_is_followed_through_its_links(tmp_path: Path) -> None:
    """Kubernetes replaces the link `..data`, never a file."""
    for name, key in (("1", "first-key"), ("2", "second-key")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(key, "utf-8")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = ApiKeys.from_file(tmp_path / "keys")
    watch = KeyWatch(tmp_path / "keys", keys)
    watch.look()
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    watch.look()

    assert accepted(keys, "first-key", "second-key") == ["second-key"]
