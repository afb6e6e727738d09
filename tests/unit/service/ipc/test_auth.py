"""Bearer keys: from a file, any of them, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.errors import SettingsError
from saccade.service.ipc.api_keys import ApiKeys, Forbidden, Unauthorized


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    path = tmp_path / "keys"
    path.write_text("first-key\n\n  second-key  \n", "utf-8")
    return ApiKeys.from_file(path)


@pytest.mark.parametrize("header", [b"Bearer first-key", b"bearer second-key", b"BEARER  first-key "])
def test_any_key_of_the_file_is_accepted(keys: ApiKeys, header: bytes) -> None:
    keys.ensure(header)


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic Zmlyc3Qta2V5", b"first-key"])
def test_request_without_a_key_is_told_how_to_send_one(keys: ApiKeys, header: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        keys.ensure(header)


@pytest.mark.parametrize("header", [b"Bearer third-key", b"Bearer first-ke", b"Bearer first-key2", b"Bearer \xff"])
def test_unknown_key_is_refused_without_repeating_it(keys: ApiKeys, header: bytes) -> None:
    with pytest.raises(Forbidden) as caught:
        keys.ensure(header)
    assert "key" not in str(caught.value).replace("this key", "")


def test_without_keys_everybody_is_accepted() -> None:
    ApiKeys.from_file(None).ensure(None)


def test_file_without_keys_refuses_to_start(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("\n \n", "utf-8")

    with pytest.raises(SettingsError, match=r"SACCADE_API_KEYS_FILE: .*holds no key"):
        ApiKeys.from_file(path)


def test_missing_file_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"SACCADE_API_KEYS_FILE: cannot read .*No such file"):
        ApiKeys.from_file(tmp_path / "absent")
