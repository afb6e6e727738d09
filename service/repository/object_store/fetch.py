"""Fetches one version whole: the manifest first, then every file that it names, each held to its size and digest."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from saccade.models.contract.manifest import (
    MANIFEST_NAME,
    FileEntry,
    ManifestError,
    manifest_from_bytes,
)
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.contents import StoredObject, StoredVersion
from saccade.service.repository.object_store.store import Store, pieces
from saccade.service.repository.signature import MAX_SIGNATURE_BYTES, SIGNATURE_NAME
from saccade.service.repository.verify import ensure_named


class VersionRefused(RepositoryError):
    """What the store holds is no version that may be served; nothing but other objects change that."""


def fetch_version(store: Store, version: StoredVersion, scratch: Path) -> None:
    """Fills `scratch`, which may hold what an earlier attempt fetched, with the files that the manifest names.

    Objects that the manifest does not name are never read, whatever their keys are. Raises VersionRefused for what is
    wrong with the objects, StoreUnreadable and ObjectChanged for what may be better next time, and OSError.
    """
    raw = b"".join(pieces(store, version.objects[MANIFEST_NAME]))
    try:
        manifest = manifest_from_bytes(raw)
        ensure_named(manifest, version.key.model, str(version.key.version))
    except (ManifestError, RepositoryError) as error:
        raise VersionRefused(str(error)) from error
    for entry in manifest.files:
        if entry.path not in version.objects:
            raise VersionRefused(f"the manifest names {entry.path}, which the store does not have; publish it again")
        found = version.objects[entry.path].size
        if found != entry.size_bytes:
            raise VersionRefused(
                f"{entry.path} has {found:,} bytes in the store, {entry.size_bytes:,} in the manifest; publish it again"
            )
    signature = version.objects.get(SIGNATURE_NAME)
    if signature is not None and signature.size > MAX_SIGNATURE_BYTES:
        raise VersionRefused(f"{SIGNATURE_NAME} has {signature.size:,} bytes, allowed are {MAX_SIGNATURE_BYTES:,}")
    _keep_only(scratch, {entry.path for entry in manifest.files})
    try:
        for entry in manifest.files:
            _fetch_file(store, version.objects[entry.path], entry, scratch / entry.path, scratch)
        if signature is not None:
            (scratch / SIGNATURE_NAME).write_bytes(b"".join(pieces(store, signature)))
        (scratch / MANIFEST_NAME).write_bytes(raw)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        raise VersionRefused(f"the manifest names paths that cannot lie beside each other: {error}") from error


def is_whole(directory: Path) -> bool:
    """Whether the files of a copied version are the ones that its manifest names. Raises OSError."""
    manifest = manifest_from_bytes((directory / MANIFEST_NAME).read_bytes())
    return all(_has(directory / entry.path, entry) for entry in manifest.files)


def _fetch_file(store: Store, found: StoredObject, entry: FileEntry, path: Path, scratch: Path) -> None:
    if _has(path, entry):  # by an earlier attempt
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch.with_name(f".{scratch.name}.partial")  # beside it, where no name of a manifest can be in its way
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for piece in pieces(store, found):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        if size != entry.size_bytes:
            raise VersionRefused(
                f"of {entry.path} came {size:,} bytes, the manifest says {entry.size_bytes:,}; publish it again"
            )
        if digest.hexdigest() != entry.sha256:
            raise VersionRefused(
                f"{entry.path} has SHA-256 {digest.hexdigest()[:12]}… in the store, the manifest says "
                f"{entry.sha256[:12]}…: the file changed after its gate; publish the version again"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _has(path: Path, entry: FileEntry) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == entry.size_bytes and (
                hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
            )
    except OSError:
        return False


def _keep_only(scratch: Path, paths: set[str]) -> None:
    """Removes what an attempt at other objects left, such as a signature or files of another manifest."""
    for path in sorted(scratch.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(each.startswith(f"{path.relative_to(scratch).as_posix()}/") for each in paths):
                shutil.rmtree(path, ignore_errors=True)
        elif path.relative_to(scratch).as_posix() not in paths:
            path.unlink(missing_ok=True)
