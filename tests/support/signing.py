"""Keys for tests, the same in every run; `signed` does what the exporter does at publish."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saccade.models.contract.manifest import MANIFEST_NAME
from saccade.service.repository.signature import SIGNATURE_NAME, key_id_of, sign_manifest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
KEY_ID = key_id_of(KEY.public_key().public_bytes_raw())
OTHER_KEY_ID = key_id_of(OTHER_KEY.public_key().public_bytes_raw())
TRUSTED = {KEY_ID: KEY.public_key().public_bytes_raw()}


def signed(version_dir: Path, key: Ed25519PrivateKey = KEY) -> Path:
    """Adds manifest.sig to a version."""
    manifest = (version_dir / MANIFEST_NAME).read_bytes()
    (version_dir / SIGNATURE_NAME).write_bytes(sign_manifest(manifest, key))
    return version_dir


def write_account_key(config: Path, key: Ed25519PrivateKey = KEY) -> None:
    """Makes `key` the own one of an account whose XDG_CONFIG_HOME is `config`."""
    directory = config / "saccade" / "signing"
    directory.mkdir(mode=0o700, parents=True)
    write_public_key(directory / f"{key_id_of(key.public_key().public_bytes_raw())}.pub.pem", key)


def write_public_key(path: Path, key: Ed25519PrivateKey = KEY) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path
