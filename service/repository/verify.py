"""Checks before a version is served that every file has the bytes which passed the gate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from saccade.models.contract.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestError,
    manifest_from_bytes,
)
from saccade.models.contract.plain_files import open_plain, read_plain
from saccade.service.errors import RepositoryError
from saccade.service.repository.report_agreement import ensure_report_agrees
from saccade.service.repository.trusted_keys import NO_SIGNATURES, SignaturePolicy


@dataclass(frozen=True, slots=True)
class VerifiedVersion:
    manifest: Manifest
    manifest_sha256: str
    path: Path
    signed_by: str | None = None  # id of the trusted key; None: unsigned, or by a key that nobody named
    is_compared_here: bool = False  # the paired speeds in `manifest` are this machine's, not the exporter's


def verified_bytes(path: Path, sha256: str | None) -> bytes:
    """A file's bytes, with their digest checked when one is given. Raises RepositoryError."""
    try:
        with open_plain(path) as file:
            content = file.read()
    except OSError as error:
        raise RepositoryError(f"cannot read {path}: {error.strerror}") from error
    if sha256 is not None:
        _ensure_digest(path, hashlib.sha256(content).hexdigest(), sha256)
    return content


def manifest_bytes(version_dir: Path) -> bytes:
    """The bytes of a version's manifest, before anything is checked. Raises RepositoryError."""
    path = version_dir / MANIFEST_NAME
    try:
        return read_plain(path, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise RepositoryError(f"cannot read {path}: {error.strerror}") from error


def verify_version(version_dir: Path, policy: SignaturePolicy = NO_SIGNATURES) -> VerifiedVersion:
    """Checks one version directory: its signature before anything is parsed, then every file.

    Raises RepositoryError with the reason.
    """
    raw = manifest_bytes(version_dir)
    signed_by = policy.signer_of(version_dir, raw)
    try:
        manifest = manifest_from_bytes(raw)
    except ManifestError as error:
        raise RepositoryError(str(error)) from error
    ensure_named(manifest, version_dir.parent.name, version_dir.name)
    for entry in manifest.files:
        _verify_file(version_dir / entry.path, entry.sha256)
    ensure_report_agrees(version_dir, manifest)
    if next(manifest.accepted_variants(), None) is None:
        raise RepositoryError("no variant passed its gate; export the model again")
    return VerifiedVersion(manifest, hashlib.sha256(raw).hexdigest(), version_dir, signed_by)


def ensure_named(manifest: Manifest, model: str, version: str) -> None:
    """Raises RepositoryError for a version that lies under another name than its manifest's."""
    if (manifest.model, str(manifest.version)) != (model, version):
        raise RepositoryError(
            f"{model}/{version} holds the manifest of {manifest.model}/{manifest.version}; directories keep their names"
        )


def ensure_judged(manifest: Manifest, *, allow_unjudged: bool) -> None:
    """Raises RepositoryError for a version that passed without labels, unless the server is told to serve such."""
    if not (manifest.judged or allow_unjudged):
        raise RepositoryError(
            "unjudged: it was published with `gate: {mode: parity}`, so that whether its answers are right was never "
            "measured; export it with labelled data, or set SACCADE_ALLOW_UNJUDGED=true"
        )


def _verify_file(path: Path, sha256: str) -> None:
    """Hashes a file in pieces, so that a large network is not held in memory."""
    try:
        with open_plain(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RepositoryError(f"cannot read {path.name}: {error.strerror}") from error
    _ensure_digest(path, found, sha256)


def _ensure_digest(path: Path, found: str, sha256: str) -> None:
    if found != sha256:
        raise RepositoryError(
            f"{path.name} has SHA-256 {found[:12]}…, the manifest says {sha256[:12]}…: "
            "the file changed after its gate; publish the version again"
        )
