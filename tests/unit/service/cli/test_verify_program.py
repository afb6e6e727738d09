"""`saccade repository verify` tells what a server with the same keys would find, and exits with 1 where it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.program_runs import exit_code_of, run
from tests.support.signing import KEY_ID, OTHER_KEY, signed, write_account_key, write_public_key


def test_repository_verify_fails_when_any_version_must_not_be_served(repository: Path) -> None:
    assert run("repository", "verify", "--repository", str(repository)).exit_code == 0
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"other")

    result = run("repository", "verify", "--repository", str(repository))

    assert result.exit_code == 1
    assert "digits/1: model.onnx has SHA-256" in result.output
    assert "digits/2: verified" in result.output


def verified(repository: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and document of `repository verify`."""
    result = run("repository", "verify", "--repository", str(repository), "--json", *arguments)
    return result.exit_code, orjson.loads(result.output)


def test_repository_verify_tells_signed_from_unsigned(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = write_public_key(tmp_path_factory.mktemp("keys") / "publisher.pem")
    signed(repository / "digits" / "2")

    code, (first, second) = verified(repository, "--trusted-keys", str(key))

    assert code == 0
    assert (first["signature"], first["key_id"], first["reason"]) == ("unsigned", None, "")
    assert (second["signature"], second["key_id"], second["reason"]) == ("valid", KEY_ID, "")


def test_repository_verify_fails_unsigned_versions_where_signatures_are_required(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = ("--trusted-keys", str(write_public_key(tmp_path_factory.mktemp("keys") / "publisher.pem")))
    signed(repository / "digits" / "2")

    code, (first, _) = verified(repository, *keys, "--require-signature")

    assert code == 1
    assert "digits/1 is not signed" in first["reason"]
    assert verified(repository, "digits/2", *keys, "--require-signature")[0] == 0


def test_repository_verify_fails_an_invalid_signature_and_a_changed_file_with_both_reasons(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = ("--trusted-keys", str(write_public_key(tmp_path_factory.mktemp("keys") / "publisher.pem")))
    signed(repository / "digits" / "1", OTHER_KEY)
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"other")

    code, (first, second) = verified(repository, *keys)

    assert code == 1
    assert first["signature"] == "invalid"
    assert "model.onnx has SHA-256" in first["reason"]
    assert "which is not trusted" in first["reason"]
    assert second["reason"] == ""


def test_repository_verify_without_keys_says_that_it_did_not_check(repository: Path) -> None:
    signed(repository / "digits" / "1", OTHER_KEY)

    result = run("repository", "verify", "digits", "--repository", str(repository))

    assert result.exit_code == 0
    assert "not checked (no trusted key of this id)" in result.output
    assert "digits/2: verified; unsigned" in result.output


def test_repository_verify_trusts_the_accounts_own_key_and_refuses_no_stranger_for_it(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path_factory.mktemp("config")
    write_account_key(config)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    signed(repository / "digits" / "1", OTHER_KEY)
    signed(repository / "digits" / "2")

    code, (first, second) = verified(repository)

    assert code == 0
    assert (first["signature"], second["signature"]) == ("unchecked", "valid")


def test_repository_verify_of_a_version_without_manifest_names_the_manifest(repository: Path) -> None:
    signed(repository / "digits" / "1")
    (repository / "digits" / "1" / "manifest.json").unlink()

    code, (first,) = verified(repository, "digits/1")

    assert code == 1
    assert "manifest.json" in first["reason"]


@pytest.mark.parametrize("wanted", ["digits/9", "nobody", "digit"])
def test_repository_verify_of_an_unknown_version_names_those_that_exist(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    assert exit_code_of(monkeypatch, "repository", "verify", wanted, "--repository", str(repository)) == 1
    assert "there are: digits/1, digits/2" in capsys.readouterr().err


def test_repository_verify_reads_keys_from_the_servers_settings(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = tmp_path_factory.mktemp("keys")
    monkeypatch.setenv("SACCADE_TRUSTED_KEYS", str(write_public_key(keys / "publisher.pem")))
    monkeypatch.setenv("SACCADE_REQUIRE_SIGNATURE", "true")

    assert verified(repository)[0] == 1
    for version in ("1", "2"):
        signed(repository / "digits" / version)
    assert verified(repository)[0] == 0


def test_requiring_signatures_without_keys_is_wrong_usage(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--repository", str(repository), "--require-signature")

    assert exit_code_of(monkeypatch, "repository", "verify", *arguments) == 2
    assert exit_code_of(monkeypatch, "serve", *arguments[:2], "--require-signature", "true") == 2
