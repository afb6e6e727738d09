"""Trusted keys are public Ed25519 keys; anything else among them refuses to start, by file name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from saccade.service.errors import SettingsError
from saccade.service.repository.trusted_keys import NO_SIGNATURES, load_trusted_keys, signature_policy
from tests.support.signing import KEY, KEY_ID, OTHER_KEY, OTHER_KEY_ID, TRUSTED, write_public_key


def test_file_is_one_key_by_its_id(tmp_path: Path) -> None:
    assert load_trusted_keys([write_public_key(tmp_path / "publisher.pem")]) == TRUSTED


def test_directory_is_all_its_files(tmp_path: Path) -> None:
    write_public_key(tmp_path / "old.pem")
    write_public_key(tmp_path / "new.pem", OTHER_KEY)

    assert set(load_trusted_keys([tmp_path])) == {KEY_ID, OTHER_KEY_ID}


def test_directory_as_kubernetes_mounts_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "..2026_01_01").mkdir()
    write_public_key(tmp_path / "..2026_01_01" / "publisher.pem")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "publisher.pem").symlink_to("..data/publisher.pem")

    assert load_trusted_keys([tmp_path]) == TRUSTED


def test_files_and_directories_add_up(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write_public_key(tmp_path / "more" / "new.pem", OTHER_KEY)

    found = load_trusted_keys([write_public_key(tmp_path / "old.pem"), tmp_path / "more"])

    assert set(found) == {KEY_ID, OTHER_KEY_ID}


def test_private_key_is_refused_and_sent_home(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(SettingsError, match=r"SACCADE_TRUSTED_KEYS: .*key\.pem holds a private key") as refused:
        load_trusted_keys([tmp_path])
    assert path.read_text().splitlines()[1] not in str(refused.value)


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1()).public_key()
    (tmp_path / "ec.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    with pytest.raises(SettingsError, match=r"ec\.pem is not an Ed25519 key"):
        load_trusted_keys([tmp_path])


def test_second_key_in_a_file_is_not_forgotten_silently(tmp_path: Path) -> None:
    first = write_public_key(tmp_path / "first.pem").read_bytes()
    second = write_public_key(tmp_path / "second.pem", OTHER_KEY).read_bytes()
    both = tmp_path / "both.pem"
    both.write_bytes(first + second)

    with pytest.raises(SettingsError, match=r"both\.pem must hold exactly one"):
        load_trusted_keys([both])


@pytest.mark.parametrize("content", [b"", b"0011223344", KEY.public_key().public_bytes_raw()])
def test_file_that_is_no_pem_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "raw").write_bytes(content)

    with pytest.raises(SettingsError, match="must hold exactly one PEM public key"):
        load_trusted_keys([tmp_path / "raw"])


def test_damaged_pem_is_refused(tmp_path: Path) -> None:
    path = write_public_key(tmp_path / "key.pem")
    path.write_bytes(path.read_bytes().replace(b"MCow", b"MCox"))

    with pytest.raises(SettingsError, match=r"key\.pem is no PEM public key"):
        load_trusted_keys([path])


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"SACCADE_TRUSTED_KEYS: cannot read .*absent\.pem: No such file"):
        load_trusted_keys([tmp_path / "absent.pem"])


def test_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no key"):
        load_trusted_keys([tmp_path])


@pytest.fixture
def _account_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "account"))


@pytest.mark.usefixtures("_account_without_keys")
def test_policy_without_keys_checks_nothing() -> None:
    assert signature_policy((), is_required=False) is NO_SIGNATURES


@pytest.mark.usefixtures("_account_without_keys")
def test_policy_has_the_keys_and_the_demand(tmp_path: Path) -> None:
    policy = signature_policy([write_public_key(tmp_path / "key.pem")], is_required=True)

    assert (policy.trusted, policy.is_required) == (TRUSTED, True)
