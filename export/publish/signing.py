"""Signs published versions with private keys from files; a version that does not verify is not signed."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from saccade.export.errors import SigningError
from saccade.models.contract.manifest import MANIFEST_NAME
from saccade.service.errors import RepositoryError, SignatureRefused, UnknownSigner, UnsignedVersion
from saccade.service.repository.account_key import account_key_directory, open_folder_reason
from saccade.service.repository.signature import (
    SIGNATURE_NAME,
    key_id_of,
    read_signature,
    sign_manifest,
    verify_signature,
)
from saccade.service.repository.verify import verified_bytes, verify_version

PASSWORD_VARIABLE = "SACCADE_SIGN_KEY_PASSWORD"
PRIVATE_KEY_NAME = "signing-key.pem"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and the path that it was read from."""

    path: Path
    key: Ed25519PrivateKey
    is_account: bool = False  # the account's own key, with which nobody asked to sign: other signatures stay

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_path(self) -> Path:
        """Where its public key lies beside it."""
        return self.path.with_name(f"{self.key_id}.pub.pem")

    @property
    def key_id(self) -> str:
        return key_id_of(self.public_key)


def load_signer(path: Path, password: str | None) -> Signer:
    """Reads a PKCS8 PEM file that only its owner may use.

    Raises SigningError, whose text never holds anything of the key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
    except OSError as error:
        raise SigningError(f"cannot read the signing key {path}: {error.strerror}") from error
    except TypeError as error:  # the password is missing, or not needed
        advice = f"unset {PASSWORD_VARIABLE}: {path} is not encrypted"
        raise SigningError(advice if password else f"{path} is encrypted: set {PASSWORD_VARIABLE}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        what = f"no private key in PEM, or not one that {PASSWORD_VARIABLE} opens" if password else "no private PEM key"
        raise SigningError(f"{path} is {what}; `saccade-export keygen DIR` makes a pair") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{path} is not an Ed25519 key; `saccade-export keygen DIR` makes a pair")
    if path.stat().st_mode & 0o077:
        raise SigningError(f"other accounts may use {path}: run `chmod 600 {shlex.quote(str(path))}`")
    return Signer(path, key)


def generate_keys(directory: Path, password: str | None) -> tuple[Path, Path]:
    """Writes a new pair: the private key (mode 0600, encrypted with a password) and `<key id>.pub.pem`.

    Raises SigningError where a private key is already there, or the directory cannot be written.
    """
    signer = Signer(directory / PRIVATE_KEY_NAME, Ed25519PrivateKey.generate())
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_new(signer.path, private, 0o600)
        _write_new(signer.public_path, signer.public_pem, 0o644)
    except FileExistsError as error:
        raise SigningError(f"{error.filename} is already there and stays; name another directory") from error
    except OSError as error:
        raise SigningError(f"cannot write keys to {directory}: {error.strerror}") from error
    return signer.path, signer.public_path


def account_signer(password: str | None = None) -> Signer:
    """The account's own key, which the first call makes, not encrypted, because nobody is there to type a password.

    Its public file is written again where it is gone, so that servers of the account trust what it signs. Raises
    SigningError where there is no key and none can be made, and where other accounts may read it or write beside it.
    """
    directory = account_key_directory()
    if directory is None:
        raise SigningError("this account has no home directory, and XDG_CONFIG_HOME names no other place for its key")
    path = directory / PRIVATE_KEY_NAME
    if not os.path.exists(path):
        _make_account_key(directory)
    try:
        reason = open_folder_reason(directory)
        is_encrypted = b"ENCRYPTED" in path.read_bytes()
    except OSError as error:
        raise SigningError(f"cannot read the signing key {path}: {error.strerror}") from error
    if reason:
        raise SigningError(reason)
    # The variable may be set for another key, so that it does not count for one that needs no password.
    signer = replace(load_signer(path, password if is_encrypted else None), is_account=True)
    _keep_public_file(signer)
    return signer


def _keep_public_file(signer: Signer) -> None:
    path = signer.public_path
    try:
        if not path.is_file() or path.read_bytes() != signer.public_pem:
            _write_by_rename(path, signer.public_pem)
    except OSError as error:
        raise SigningError(
            f"servers would not trust this account's key: cannot write {path}: {error.strerror}"
        ) from error


def _make_account_key(directory: Path) -> None:
    """Makes a pair in a directory of its own, and renames that: of two programs that start at once, one's key stays."""
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=directory.parent))  # mode 0700
    except OSError as error:
        raise SigningError(f"cannot keep this account's signing key in {directory}: {error.strerror}") from error
    path = directory / PRIVATE_KEY_NAME
    try:
        generate_keys(scratch, None)
        os.rename(scratch, directory)
    except OSError as error:
        if os.path.exists(path):
            return
        if os.path.lexists(directory):
            what = f"{path} is a link that leads nowhere" if path.is_symlink() else f"{directory} holds no {path.name}"
            advice = "put the key back, or move that folder away and the next run makes a new key"
            raise SigningError(f"{what}: {advice}") from error
        raise SigningError(f"cannot keep this account's signing key in {directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sign_version(version_dir: Path, signer: Signer, *, may_replace: bool = False) -> bool:
    """Adds manifest.sig to a published version; False when this key's valid signature is already there.

    Another signature stays, unless `may_replace`: a wrong one means that somebody changed something.
    Raises SigningError, also for a version that a server would refuse.
    """
    version_dir = version_dir.absolute()
    try:
        verified = verify_version(version_dir)
        manifest = verified_bytes(version_dir / MANIFEST_NAME, verified.manifest_sha256)
    except RepositoryError as error:
        raise SigningError(f"not signed: {error}") from error
    try:
        verify_signature(version_dir, manifest, {signer.key_id: signer.public_key})
        return False
    except UnsignedVersion:
        pass
    except SignatureRefused as error:
        if signer.is_account and isinstance(error, UnknownSigner):
            return False
        if not may_replace:
            raise SigningError(
                f"{version_dir} has a signature that is not this key's valid one ({_claim(version_dir)}). "
                f"Find out why; `saccade-export sign {version_dir} --key {signer.path} --replace` signs it anew"
            ) from error
    _write_signature(version_dir, sign_manifest(manifest, signer.key))
    return True


def _claim(version_dir: Path) -> str:
    try:
        return f"it names key {read_signature(version_dir).key_id}"
    except SignatureRefused as error:
        return str(error)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Writes a new file that has its mode from the first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_signature(version_dir: Path, content: bytes) -> None:
    """Writes by one rename, so that a server never reads half of it. The temporary file lies beside the version."""
    path = version_dir / SIGNATURE_NAME
    try:
        _write_by_rename(path, content, scratch_dir=version_dir.parent)
    except OSError as error:
        raise SigningError(f"cannot write {path}: {error.strerror}") from error


def _write_by_rename(path: Path, content: bytes, scratch_dir: Path | None = None) -> None:
    """Replaces a file that everybody may read, whole; the temporary file lies in `scratch_dir`, else beside it."""
    descriptor, name = tempfile.mkstemp(prefix=".signing-", dir=scratch_dir or path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
