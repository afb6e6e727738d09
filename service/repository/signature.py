"""Signatures of versions: checks that a trusted key signed the manifest's bytes; each kind of refusal has its error.

`manifest.sig` lies beside `manifest.json` and signs its exact bytes (Ed25519, RFC 8032); the manifest holds the digest
of every other file, so one signature covers the version.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
from pydantic import Field, ValidationError

from saccade.models.contract.plain_files import open_plain
from saccade.models.contract.specs import Frozen, Sha256
from saccade.service.errors import BadSignature, DamagedSignature, SignatureRefused, UnknownSigner, UnsignedVersion

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_NAME = "manifest.sig"
MAX_SIGNATURE_BYTES = 4096  # a real signature has about 300; the limit bounds what a hostile writer makes us read
_ED25519_SIGNATURE_BYTES = 64

TrustedKeys = Mapping[str, bytes]  # raw public keys by key id


class ManifestSignature(Frozen):
    """The content of `manifest.sig`."""

    algorithm: Literal["ed25519"]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    manifest_sha256: Sha256  # tells, when the signature is invalid, whether the manifest changed
    signature: str  # base64


def key_id_of(public_key: bytes) -> str:
    """The first 16 hex digits of a raw public key's SHA-256. The id finds a key but proves nothing."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def sign_manifest(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `manifest.sig` for the bytes of a `manifest.json`."""
    signed = ManifestSignature(
        algorithm="ed25519",
        key_id=key_id_of(key.public_key().public_bytes_raw()),
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        signature=base64.b64encode(key.sign(manifest)).decode("ascii"),
    )
    return orjson.dumps(signed.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read_signature(version_dir: Path) -> ManifestSignature:
    """What the version claims, unverified. Raises UnsignedVersion or DamagedSignature."""
    path = version_dir / SIGNATURE_NAME
    try:
        with open_plain(path) as file:
            raw = file.read(MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError as error:
        raise UnsignedVersion(
            f"{version_dir} is not signed (no {SIGNATURE_NAME}): run `saccade-export sign {version_dir} --key FILE`"
        ) from error
    except OSError as error:
        raise _damaged(str(error.strerror)) from error
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise _damaged(f"it is larger than {MAX_SIGNATURE_BYTES} bytes")
    try:
        return ManifestSignature.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise _damaged(f"not JSON: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(f"{'.'.join(str(part) for part in first['loc']) or 'document'}: {first['msg']}") from error


def claimed_key_id(version_dir: Path) -> str:
    """The id of the key that claims to have signed the version, unverified; empty without a readable signature."""
    try:
        return read_signature(version_dir).key_id
    except SignatureRefused:
        return ""


def verify_signature(version_dir: Path, manifest: bytes, trusted: TrustedKeys) -> str:
    """The id of the trusted key that signed `manifest`, the bytes of this version's manifest.json.

    Only manifest.sig is parsed. Raises UnsignedVersion, DamagedSignature, UnknownSigner or BadSignature.
    """
    claimed = read_signature(version_dir)
    signature = _signature_bytes(claimed)
    public_key = trusted.get(claimed.key_id)
    if public_key is None:
        raise UnknownSigner(
            f"signed by key {claimed.key_id}, which is not trusted; trusted: {', '.join(sorted(trusted)) or 'none'}. "
            "Add its public key to SACCADE_TRUSTED_KEYS, or have a trusted key sign the version"
        )
    found = hashlib.sha256(manifest).hexdigest()
    if found != claimed.manifest_sha256:
        raise BadSignature(
            f"manifest.json has SHA-256 {found[:12]}…, {SIGNATURE_NAME} was made for {claimed.manifest_sha256[:12]}…: "
            "one of them was changed or copied from elsewhere; publish the version again"
        )
    # Imported here, because it takes time and memory, and only servers with trusted keys need it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, manifest)
    except InvalidSignature as error:
        raise BadSignature(
            f"{SIGNATURE_NAME} was not made by key {claimed.key_id} for this manifest.json: "
            "do not serve it; find out who wrote it, and publish the version again"
        ) from error
    return claimed.key_id


def _signature_bytes(claimed: ManifestSignature) -> bytes:
    try:
        signature = base64.b64decode(claimed.signature, validate=True)
    except ValueError as error:
        raise _damaged(f"signature is not base64 ({error})") from error
    if len(signature) != _ED25519_SIGNATURE_BYTES:
        raise _damaged(f"signature has {len(signature)} bytes instead of {_ED25519_SIGNATURE_BYTES}")
    return signature


def _damaged(reason: str) -> DamagedSignature:
    return DamagedSignature(f"cannot use {SIGNATURE_NAME}: {reason}; remove it and sign the version again")
