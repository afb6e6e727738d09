"""Reads and extends a model repository. Promises: a published version never changes (README, guarantee 10).

A version appears whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saccade.export.errors import PublishError
from saccade.models.contract.manifest import MAX_VERSION, Manifest, ManifestError, read_manifest
from saccade.service.repository.object_store.address import url_of


def version_numbers(model_dir: Path) -> list[int]:
    """Returns the ascending numbers of the version directories; other entries are ignored."""
    if not model_dir.is_dir():
        return []
    names = [path.name for path in model_dir.iterdir() if path.is_dir()]
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name]
    return sorted(number for number in numbers if number <= MAX_VERSION)  # a server refuses larger ones, too


def readable_manifests(repository: Path, model: str) -> list[Manifest]:
    """Returns all manifests that can be read, oldest first; the service reports damaged ones."""
    url = url_of(repository)
    if url is not None:
        # Imported here: a repository in a directory needs nothing of object stores.
        from saccade.export.publish.stored_repository import StoredRepository

        return StoredRepository(url).manifests(model)
    manifests = []
    for number in version_numbers(repository / model):
        try:
            manifests.append(read_manifest(repository / model / str(number))[0])
        except ManifestError:
            continue
    return manifests


def ensure_readable(repository: Path) -> None:
    """Raises PublishError where a repository in an object store cannot be read, before an export and not after it."""
    url = url_of(repository)
    if url is not None:
        from saccade.export.publish.stored_repository import StoredRepository

        StoredRepository(url).ensure_readable()


def newest_manifest(repository: Path, model: str) -> Manifest | None:
    return next(reversed(readable_manifests(repository, model)), None)


@contextmanager
def next_version(model_dir: Path) -> Iterator[Path]:
    """Gives a directory beside the versions, which `add_version` renames; at the end nothing else is left of it.

    Raises PublishError for what the disk does not take.
    """
    is_new = not model_dir.exists()
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=model_dir))
        try:
            scratch.chmod(0o755)
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise PublishError(f"cannot write to {model_dir}: {reason}; no version was added") from error
    finally:
        if is_new:
            with suppress(OSError):  # it holds a version
                model_dir.rmdir()


def add_version(model_dir: Path, scratch: Path, finish: Callable[[int], None]) -> int:
    """Renames `scratch` to the next free version number and returns it.

    `finish(number)` writes what depends on the number; it runs again when another publisher took it first.
    Raises PublishError when the rename fails.
    """
    while True:
        number = max(version_numbers(model_dir), default=0) + 1
        finish(number)
        _sync_tree(scratch)
        try:
            # On POSIX a rename onto a directory that is not empty fails, so a taken number is never overwritten.
            scratch.rename(model_dir / str(number))
        except OSError as error:
            if (model_dir / str(number)).exists():
                continue
            raise PublishError(f"cannot publish {model_dir / str(number)}: {error.strerror}") from error
        try:
            _sync(model_dir)
        except OSError as error:
            text = f"{model_dir / str(number)} was added, but may be lost when the machine stops: {error.strerror}"
            raise PublishError(text) from error
        return number


def _sync_tree(directory: Path) -> None:
    """Flushes all files, so that a crash after the rename cannot leave a version with empty files."""
    for path in directory.rglob("*"):
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
