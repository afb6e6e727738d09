"""A signature holds for the manifest it was made for, by a trusted key; everything else is refused by name."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from saccade.service.errors import (
    BadSignature,
    DamagedSignature,
    RepositoryError,
    SignatureRefused,
    UnknownSigner,
    UnsignedVersion,
)
from saccade.service.repository.signature import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    read_signature,
    sign_manifest,
    verify_signature,
)
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.repository.verify import verify_version
from tests.support.signing import KEY, KEY_ID, OTHER_KEY, OTHER_KEY_ID, TRUSTED, signed
from tests.support.versions import manifest_for, publish

REQUIRED = SignaturePolicy(TRUSTED, is_required=True)
CHECKED = SignaturePolicy(TRUSTED, is_required=False)


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    return signed(publish(tmp_path, manifest_for("digits", 1)))


def rewrite(version_dir: Path, **fields: Any) -> None:
    """Replaces fields of manifest.sig."""
    path = version_dir / SIGNATURE_NAME
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **fields}))


@pytest.mark.parametrize("policy", [REQUIRED, CHECKED])
def test_signed_version_is_verified_and_names_its_signer(version_dir: Path, policy: SignaturePolicy) -> None:
    assert verify_version(version_dir, policy).signed_by == KEY_ID


def test_signature_of_the_same_bytes_is_the_same() -> None:
    assert sign_manifest(b"manifest", KEY) == sign_manifest(b"manifest", KEY)


def test_signature_is_plain_ed25519_of_the_file(version_dir: Path) -> None:
    """So that any other program can check it."""
    signature = base64.b64decode(read_signature(version_dir).signature)

    KEY.public_key().verify(signature, (version_dir / "manifest.json").read_bytes())


@pytest.mark.parametrize("position", [0, 100, -2])
def test_every_changed_byte_of_the_manifest_is_refused(version_dir: Path, position: int) -> None:
    path = version_dir / "manifest.json"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadSignature, match=r"manifest\.json has SHA-256 .*, manifest\.sig was made for"):
        verify_version(version_dir, REQUIRED)


def test_gate_thresholds_cannot_be_edited_with_matching_digest(version_dir: Path) -> None:
    """Whoever recomputes the digest in manifest.sig still lacks the key."""
    path = version_dir / "manifest.json"
    edited = path.read_bytes().replace(b'"limit": 0.0001', b'"limit": 0.9999')
    assert edited != path.read_bytes()
    path.write_bytes(edited)
    forged = orjson.loads(sign_manifest(edited, OTHER_KEY))
    rewrite(version_dir, manifest_sha256=forged["manifest_sha256"])

    with pytest.raises(BadSignature, match=f"not made by key {KEY_ID}"):
        verify_version(version_dir, REQUIRED)


def test_manifest_is_not_parsed_before_its_signature_holds(version_dir: Path) -> None:
    (version_dir / "manifest.json").write_bytes(b"not even JSON")

    with pytest.raises(BadSignature):
        verify_version(version_dir, REQUIRED)


def test_signature_of_another_version_is_refused(version_dir: Path, tmp_path: Path) -> None:
    other = signed(publish(tmp_path, manifest_for("digits", 2)))
    (version_dir / SIGNATURE_NAME).write_bytes((other / SIGNATURE_NAME).read_bytes())

    with pytest.raises(BadSignature, match="copied from elsewhere"):
        verify_version(version_dir, REQUIRED)


def test_signed_version_under_another_number_is_refused(version_dir: Path) -> None:
    moved = version_dir.rename(version_dir.parent / "7")

    with pytest.raises(RepositoryError, match="directories keep their names"):
        verify_version(moved, REQUIRED)


def test_changed_network_of_a_signed_version_is_refused(version_dir: Path) -> None:
    (version_dir / "model.onnx").write_bytes(b"weightz")

    with pytest.raises(RepositoryError, match="the file changed after its gate"):
        verify_version(version_dir, REQUIRED)


@pytest.mark.parametrize("policy", [REQUIRED, CHECKED])
def test_key_that_is_not_trusted_is_refused_and_the_trusted_ones_are_named(
    version_dir: Path, policy: SignaturePolicy
) -> None:
    signed(version_dir, OTHER_KEY)

    with pytest.raises(UnknownSigner, match=rf"key {OTHER_KEY_ID}, which is not trusted; trusted: {KEY_ID}\."):
        verify_version(version_dir, policy)


@pytest.mark.parametrize("policy", [REQUIRED, CHECKED])
def test_another_keys_signature_under_a_trusted_id_is_refused(version_dir: Path, policy: SignaturePolicy) -> None:
    signed(version_dir, OTHER_KEY)
    rewrite(version_dir, key_id=KEY_ID)

    with pytest.raises(BadSignature, match="do not serve it"):
        verify_version(version_dir, policy)


@pytest.mark.parametrize("policy", [REQUIRED, CHECKED])
def test_flipped_bit_of_the_signature_is_refused(version_dir: Path, policy: SignaturePolicy) -> None:
    signature = bytearray(base64.b64decode(read_signature(version_dir).signature))
    signature[5] ^= 1
    rewrite(version_dir, signature=base64.b64encode(signature).decode())

    with pytest.raises(BadSignature):
        verify_version(version_dir, policy)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"signature": "bm90IDY0IGJ5dGVz"}, "signature has 12 bytes instead of 64"),
        ({"signature": "%%%"}, "not base64"),
        ({"algorithm": "none"}, "algorithm: Input should be 'ed25519'"),
        ({"key_id": "../etc"}, "key_id: "),
        ({"manifest_sha256": ""}, "manifest_sha256: "),
        ({"valid": True}, "valid: Extra inputs"),
    ],
)
@pytest.mark.parametrize("policy", [REQUIRED, CHECKED])
def test_field_that_is_not_a_signatures_is_refused_by_name(
    version_dir: Path, fields: dict[str, Any], reason: str, policy: SignaturePolicy
) -> None:
    rewrite(version_dir, **fields)

    with pytest.raises(DamagedSignature, match=reason):
        verify_version(version_dir, policy)


@pytest.mark.parametrize("length", [0, 1, 60, -2])
def test_truncated_signature_is_refused(version_dir: Path, length: int) -> None:
    path = version_dir / SIGNATURE_NAME
    path.write_bytes(path.read_bytes().rstrip()[:length])

    with pytest.raises(DamagedSignature, match="not JSON"):
        verify_version(version_dir, CHECKED)


@pytest.mark.parametrize("document", [b"[]", b"null", b'"signed"', b"7"])
def test_document_that_is_no_object_is_refused(version_dir: Path, document: bytes) -> None:
    (version_dir / SIGNATURE_NAME).write_bytes(document)

    with pytest.raises(DamagedSignature, match="document: "):
        verify_version(version_dir, CHECKED)


def test_huge_signature_file_is_refused_without_reading_it(version_dir: Path) -> None:
    os.truncate(version_dir / SIGNATURE_NAME, 1 << 40)  # a hole; reading a terabyte would not end

    with pytest.raises(DamagedSignature, match=f"larger than {MAX_SIGNATURE_BYTES} bytes"):
        verify_version(version_dir, CHECKED)


def test_directory_in_place_of_the_signature_is_refused(version_dir: Path) -> None:
    (version_dir / SIGNATURE_NAME).unlink()
    (version_dir / SIGNATURE_NAME).mkdir()

    with pytest.raises(DamagedSignature, match="Is a directory"):
        verify_version(version_dir, CHECKED)


def test_unsigned_version_is_refused_only_where_signatures_are_required(version_dir: Path) -> None:
    (version_dir / SIGNATURE_NAME).unlink()

    assert verify_version(version_dir, CHECKED).signed_by is None
    with pytest.raises(UnsignedVersion, match=r"is not signed .*saccade-export sign .* --key FILE"):
        verify_version(version_dir, REQUIRED)


def test_required_signatures_without_any_trusted_key_refuse_everything(version_dir: Path) -> None:
    with pytest.raises(UnknownSigner, match="trusted: none"):
        verify_version(version_dir, SignaturePolicy({}, is_required=True))


def test_without_trusted_keys_signatures_are_not_looked_at(version_dir: Path) -> None:
    (version_dir / SIGNATURE_NAME).write_bytes(b"anything")

    assert verify_version(version_dir).signed_by is None


def test_every_refusal_is_a_reason_not_to_serve() -> None:
    kinds = (UnsignedVersion, UnknownSigner, BadSignature, DamagedSignature)

    assert all(issubclass(kind, SignatureRefused) and issubclass(kind, RepositoryError) for kind in kinds)


def test_verify_signature_reads_no_manifest_file(tmp_path: Path) -> None:
    (tmp_path / SIGNATURE_NAME).write_bytes(sign_manifest(b"these bytes", KEY))

    assert verify_signature(tmp_path, b"these bytes", TRUSTED) == KEY_ID
