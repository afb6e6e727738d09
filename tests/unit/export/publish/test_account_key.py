"""The account's own key. Promises: made once, kept from others, trusted by servers; each fault is one sentence."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from saccade.export.cli.signing import signer_from
from saccade.export.errors import SigningError
from saccade.export.publish import signing
from saccade.export.publish.signing import PRIVATE_KEY_NAME, Signer, account_signer, generate_keys, sign_version
from saccade.service.repository.account_key import account_public_keys
from saccade.service.repository.trusted_keys import load_trusted_keys
from tests.support.signing import OTHER_KEY, signed
from tests.support.versions import manifest_for, publish


@pytest.fixture(autouse=True)
def _no_password_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACCADE_SIGN_KEY_PASSWORD", raising=False)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings of an account without a key lie."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_first_call_makes_the_accounts_key_and_later_ones_read_it(account: Path) -> None:
    first, second = account_signer(), account_signer()

    assert first.key_id == second.key_id
    assert first.path == account / "saccade" / "signing" / PRIVATE_KEY_NAME
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in (account / "saccade").iterdir()] == ["signing"]
    assert account_public_keys() == (first.path.parent / f"{first.key_id}.pub.pem",)


def test_account_without_a_config_variable_keeps_its_key_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert account_signer().path.is_relative_to(tmp_path / ".config")


def test_programs_that_start_at_once_agree_on_one_key(account: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        signers = list(pool.map(lambda _: account_signer(), range(8)))

    assert len({signer.key_id for signer in signers}) == 1
    assert [path.name for path in (account / "saccade").iterdir()] == ["signing"]


def test_program_that_comes_second_takes_the_key_of_the_first(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one finishes between the look and the rename."""
    others: list[Signer] = []
    generate = signing.generate_keys

    def generate_behind_another(directory: Path, password: str | None) -> tuple[Path, Path]:
        if not others:
            monkeypatch.setattr(signing, "generate_keys", generate)
            others.append(account_signer())
        return generate(directory, password)

    monkeypatch.setattr(signing, "generate_keys", generate_behind_another)

    assert account_signer().key_id == others[0].key_id


def test_account_that_can_keep_no_key_publishes_unsigned_and_says_so(
    account: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account.write_text("a file, where a folder would have to be")

    assert signer_from(None, no_sign=False) is None
    said = capsys.readouterr().err
    assert f"versions will be unsigned: cannot keep this account's signing key in {account}/saccade/signing" in said
    assert "Not a directory" in said


def test_account_without_a_home_publishes_unsigned_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", homeless)

    assert signer_from(None, no_sign=False) is None
    assert "this account has no home directory" in capsys.readouterr().err
    assert account_public_keys() == ()


def test_full_disk_leaves_no_half_of_a_key(
    account: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes, mode: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(signing, "_write_new", full)

    assert signer_from(None, no_sign=False) is None
    assert "No space left on device" in capsys.readouterr().err
    assert list((account / "saccade").iterdir()) == []


def test_damaged_account_key_is_named_and_nothing_is_signed(account: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = account_signer().path
    path.write_bytes(b"damaged")

    assert signer_from(None, no_sign=False) is None
    assert f"{path} is no private PEM key" in capsys.readouterr().err


def test_encrypted_account_key_is_opened_by_the_variable(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = account / "saccade" / "signing"
    generate_keys(directory, "correct horse")
    directory.chmod(0o700)

    with pytest.raises(SigningError, match="is encrypted: set SACCADE_SIGN_KEY_PASSWORD"):
        account_signer()
    monkeypatch.setenv("SACCADE_SIGN_KEY_PASSWORD", "correct horse")

    assert signer_from(None, no_sign=False) is not None


def test_password_of_another_key_does_not_stop_the_accounts_open_one(account: Path) -> None:
    assert account_signer("correct horse").key_id == account_signer().key_id


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_folder_that_others_may_write_to_neither_signs_nor_is_trusted(
    account: Path, mode: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    directory = account_signer().path.parent
    directory.chmod(mode)

    assert signer_from(None, no_sign=False) is None
    assert f"run `chmod 700 {directory}`" in capsys.readouterr().err
    assert account_public_keys() == ()
    assert f"the account's own key is not trusted: other accounts may write to {directory}" in caplog.text


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_account_key_that_others_may_read_does_not_sign(
    account: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = account_signer().path
    path.chmod(mode)

    assert signer_from(None, no_sign=False) is None
    assert f"run `chmod 600 {path}`" in capsys.readouterr().err


@pytest.mark.parametrize("is_replaced", [False, True])
def test_public_file_of_the_account_key_is_written_again(account: Path, is_replaced: bool, tmp_path: Path) -> None:
    first = account_signer()
    if is_replaced:
        os.replace(generate_keys(tmp_path / "new", None)[0], first.path)
    else:
        first.public_path.write_text("another")

    now = account_signer()

    assert (now.key_id != first.key_id) == is_replaced
    assert load_trusted_keys([now.public_path]) == {now.key_id: now.public_key}
    assert now.public_path in account_public_keys()
    assert stat.S_IMODE(now.public_path.stat().st_mode) == 0o644


@pytest.mark.parametrize("link", [None, PRIVATE_KEY_NAME, "absent.pem"])
def test_folder_without_a_usable_key_is_named_with_what_to_do(account: Path, link: str | None) -> None:
    directory = account / "saccade" / "signing"
    directory.mkdir(mode=0o700, parents=True)
    if link is None:
        (directory / ".DS_Store").touch()
    else:
        (directory / PRIVATE_KEY_NAME).symlink_to(link)

    with pytest.raises(SigningError, match=r"(leads nowhere|holds no .*): put the key back, or move that folder away"):
        account_signer()


def test_nobody_signs_where_nobody_shall(account: Path) -> None:
    assert signer_from(None, no_sign=True) is None
    assert not account.exists()


def test_account_key_leaves_the_signatures_of_others(account: Path, tmp_path: Path) -> None:
    version_dir = signed(publish(tmp_path / "repository", manifest_for("digits", 1)), OTHER_KEY)
    before = {path.name: path.read_bytes() for path in version_dir.iterdir()}

    assert not sign_version(version_dir, account_signer())
    assert {path.name: path.read_bytes() for path in version_dir.iterdir()} == before
