"""The public keys whose signatures count: the settings' and the account's own. Each is read, or refused by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.service.errors import SettingsError, UnknownSigner, UnsignedVersion
from saccade.service.repository.account_key import account_public_keys
from saccade.service.repository.signature import TrustedKeys, key_id_of, verify_signature


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """What a server demands of signatures. Without trusted keys nothing is checked."""

    trusted: TrustedKeys
    is_required: bool  # whether a version without a signature is refused
    # Whether a signature by an unknown key is refused. A server whose only key is its account's own was told of nobody
    # else, so that versions from elsewhere count as unsigned.
    refuses_unknown: bool = True

    def signer_of(self, version_dir: Path, manifest: bytes) -> str | None:
        """The id of the trusted key that signed; None for an unsigned version, where that is allowed.

        Raises SignatureRefused.
        """
        if not self.trusted and not self.is_required:
            return None
        try:
            return verify_signature(version_dir, manifest, self.trusted)
        except UnsignedVersion:
            if self.is_required:
                raise
        except UnknownSigner:
            if self.refuses_unknown:
                raise
        return None


NO_SIGNATURES = SignaturePolicy({}, is_required=False)


def signature_policy(paths: Sequence[Path], *, is_required: bool) -> SignaturePolicy:
    """Reads the trusted keys and the account's own. Raises SettingsError for a file that is no public key to read."""
    own = account_public_keys()
    if not (paths or own or is_required):
        return NO_SIGNATURES
    return SignaturePolicy(load_trusted_keys([*paths, *own]), is_required, refuses_unknown=bool(paths) or is_required)


def load_trusted_keys(paths: Sequence[Path]) -> TrustedKeys:
    """Keys by id, from PEM files and all files of directories. Names with a leading dot are skipped.

    Raises SettingsError.
    """
    keys = (_public_key(file) for path in paths for file in _files_of(path))
    return {key_id_of(key): key for key in keys}


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        # Kubernetes mounts a volume as links into a directory `..data`, which is not read itself.
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise SettingsError(f"SACCADE_TRUSTED_KEYS: cannot read {path}: {error.strerror}") from error
    if not files:
        raise SettingsError(f"SACCADE_TRUSTED_KEYS: the directory {path} holds no key")
    return files


def _public_key(path: Path) -> bytes:
    # Imported here, because it takes time and memory, and only servers with trusted keys need it.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        pem = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"SACCADE_TRUSTED_KEYS: cannot read {path}: {error.strerror}") from error
    if b"PRIVATE KEY-----" in pem:
        raise SettingsError(
            f"SACCADE_TRUSTED_KEYS: {path} holds a private key; keep it with the publisher and name its public key here"
        )
    if pem.count(b"-----BEGIN") != 1:
        raise SettingsError(f"SACCADE_TRUSTED_KEYS: {path} must hold exactly one PEM public key; put others into files")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"SACCADE_TRUSTED_KEYS: {path} is no PEM public key ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(
            f"SACCADE_TRUSTED_KEYS: {path} is not an Ed25519 key; `saccade-export keygen DIR` makes a pair"
        )
    return key.public_bytes_raw()
