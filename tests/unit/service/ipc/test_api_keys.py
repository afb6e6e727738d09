"""Bearer keys: from a file, hashed or not, any of them, nothing else, and only for what they may do."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.errors import SettingsError
from saccade.service.ipc.api_keys import ApiKeys, Forbidden, Scope, Unauthorized, key_named, keys_from

HASHED = key_named("hashed-key", {Scope.PREDICT}, "phone-app").line


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    path = tmp_path / "keys"
    path.write_text(f"# who\nfirst-key\n\n  second-key  scopes=admin,read\n{HASHED}\n", "utf-8")
    return ApiKeys.from_file(path)


@pytest.mark.parametrize(
    ("header", "scope"),
    [
        (b"Bearer first-key", Scope.PREDICT),
        (b"bearer first-key", Scope.READ),
        (b"bearer second-key", Scope.ADMIN),
        (b"BEARER  hashed-key ", Scope.PREDICT),
    ],
)
def test_any_key_of_the_file_is_accepted(keys: ApiKeys, header: bytes, scope: Scope) -> None:
    assert keys.ensure(header, scope) is not None


@pytest.mark.parametrize(
    ("header", "scope"),
    [
        (b"Bearer first-key", Scope.ADMIN),  # not unless its line says so
        (b"Bearer second-key", Scope.PREDICT),
        (b"Bearer hashed-key", Scope.READ),
    ],
)
def test_key_is_refused_what_it_may_not_do(keys: ApiKeys, header: bytes, scope: Scope) -> None:
    with pytest.raises(Forbidden, match=f"may not {scope}"):
        keys.ensure(header, scope)


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic Zmlyc3Qta2V5", b"first-key"])
def test_request_without_a_key_is_told_how_to_send_one(keys: ApiKeys, header: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        keys.ensure(header, Scope.PREDICT)


@pytest.mark.parametrize(
    "given", [b"third-key", b"first-ke", b"first-key2", b"\xff", b"# who", HASHED.split()[0].encode()]
)
def test_unknown_key_is_refused_without_repeating_it(keys: ApiKeys, given: bytes) -> None:
    with pytest.raises(Forbidden) as caught:
        keys.ensure(b"Bearer " + given, Scope.PREDICT)
    assert "key" not in str(caught.value).replace("this key", "")


def test_keys_that_stand_in_the_file_themselves_are_counted(keys: ApiKeys) -> None:
    assert keys.plain_count == 2


def test_without_a_file_everybody_is_accepted_and_with_no_key_left_nobody() -> None:
    ApiKeys.from_file(None).ensure(None, Scope.ADMIN)

    with pytest.raises(Forbidden):
        ApiKeys([]).ensure(b"Bearer first-key", Scope.PREDICT)


def test_line_that_is_printed_is_a_line_that_is_read() -> None:
    assert keys_from(HASHED) == ([key_named("hashed-key", {Scope.PREDICT}, "phone-app")], [])


@pytest.mark.parametrize(
    "line",
    [
        "a-key scopes=everything",
        "a-key scopes=",
        "a-key b-key",
        "a-key scopes=read scopes=read",
        "a-key owner=me",
        "sha256:abc",
        "sha256:" + "G" * 64,
        "good-key",
    ],
)
def test_bad_line_is_named_by_its_number_and_takes_no_other_key_away(line: str) -> None:
    keys, problems = keys_from(f"good-key\n{line}\n")

    assert keys == [key_named("good-key", is_hashed=False)]
    assert len(problems) == 1
    assert problems[0].startswith("line 2: ")
    assert "a-key" not in problems[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n \n# none\n", "holds no key"),
        (b"key scopes=everything", "line 1: scopes are predict, read, admin"),
        (b"\xff\xfe", "cannot read"),
        (b"k" * (1024 * 1024 + 1), "more than"),
        (None, "cannot read .*No such file"),
    ],
    ids=["no key", "bad line", "no text", "too large", "no file"],
)
def test_file_that_cannot_be_used_refuses_to_start(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError, match=f"SACCADE_API_KEYS_FILE: .*{problem}"):
        ApiKeys.from_file(path)
