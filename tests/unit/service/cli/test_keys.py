"""`saccade keys`: what it prints is what a server accepts."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from saccade.service.cli.keys import keys
from saccade.service.errors import BadParameter
from saccade.service.ipc.api_keys import ApiKeys, Scope, keys_from


def test_new_key_is_shown_once_and_only_its_hash_goes_into_the_file() -> None:
    result = CliRunner().invoke(keys, ["new", "--name", "phone-app", "--scope", "predict"])
    key = result.stderr.strip().rpartition(" ")[2]
    (found,), problems = keys_from(result.stdout)

    assert problems == []
    assert (found.name, found.scopes) == ("phone-app", {Scope.PREDICT})
    assert key not in result.stdout
    assert ApiKeys([found]).ensure(f"Bearer {key}".encode(), Scope.PREDICT) == found


def test_hash_of_a_key_that_is_there_comes_from_stdin() -> None:
    result = CliRunner().invoke(keys, ["hash"], input="a-key-of-long-ago-1234\n")
    (found,), _ = keys_from(result.stdout)

    assert ApiKeys([found]).ensure(b"Bearer a-key-of-long-ago-1234", Scope.READ) == found


@pytest.mark.parametrize("key", ["", "short", "two words of a sentence", "k\xe9y-of-long-ago-1234"])
def test_key_that_is_none_or_easily_found_is_refused(key: str) -> None:
    result = CliRunner().invoke(keys, ["hash"], input=key + "\n")

    assert isinstance(result.exception, BadParameter)
    assert result.stdout == ""
