"""The copy of a repository in this account's cache: every change is one rename, and one process at a time makes it.

<cache>/store.json                         what it is a copy of
<cache>/versions/<model>/<version>/        a repository as any other, of verified versions
<cache>/scratch/<model>-<version>/         a version that is being fetched
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import orjson

from saccade.models.contract.manifest import MANIFEST_NAME
from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.repository.confined_files import opened_directory, replace_file
from saccade.service.repository.object_store.contents import Copied, StoredVersion
from saccade.service.repository.open import list_versions
from saccade.service.repository.serving_document import SERVING_NAME, ServingRefused, document_from
from saccade.service.repository.serving_history import HISTORY
from saccade.service.repository.signature import SIGNATURE_NAME

_RECORD = ".fetched.json"  # in a version's directory: the tags that its objects had
_MOST_RECORD_BYTES = 4 * 1024 * 1024  # a tag and a path for every file


class Copy:
    """The directory of one copy. Every method raises OSError where the disk does not take it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._scratch = directory.parent / "scratch"

    def versions(self) -> dict[VersionKey, Copied]:
        """What the copy holds. A version that something else put there has no tags, and is the oldest."""
        try:
            found = list_versions(self.directory)
        except RepositoryError:  # nothing was fetched so far
            return {}
        return {each.key: _read_record(each.path, sum(size for _, size, _ in each.fingerprint)) for each in found}

    @contextmanager
    def scratch(self, version: StoredVersion) -> Iterator[Path | None]:
        """A directory to fetch a version into, with what an earlier attempt fetched of it; None: another process is
        at it. It lies where a rename makes it part of the copy.
        """
        directory = self._scratch / f"{version.key.model}-{version.key.version}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self._scratch / f".{directory.name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as is_ours:
            yield directory if is_ours else None

    def place(self, scratch: Path, version: StoredVersion, fetched_s: float) -> None:
        """Makes a fetched version part of the copy, whole, unless another process was first."""
        signature = version.objects.get(SIGNATURE_NAME)
        record = Copied(
            0,
            version.objects[MANIFEST_NAME].tag,
            "" if signature is None else signature.tag,
            round(fetched_s, 3),
            _file_tags(scratch, version),
        )
        (scratch / _RECORD).write_bytes(orjson.dumps(asdict(record)))
        _sync_tree(scratch)
        target = self.path(version.key)
        target.parent.mkdir(exist_ok=True)
        with self._alone():
            if not target.exists():
                scratch.chmod(0o755)
                scratch.rename(target)
        shutil.rmtree(scratch, ignore_errors=True)

    def sign(self, version: StoredVersion, signature: bytes, tag: str) -> None:
        """Adds the signature that a version got after it was fetched."""
        parts = (version.key.model, str(version.key.version))
        path = self.path(version.key)
        record = {**asdict(_read_record(path, 0)), "signature_tag": tag}
        with self._alone(), opened_directory(self.directory, parts) as directory:
            replace_file(directory, SIGNATURE_NAME, signature)
            replace_file(directory, _RECORD, orjson.dumps(record))

    def drop(self, key: VersionKey) -> None:
        """Takes a version away, in one rename."""
        leaving = self._scratch / f".leaving-{key.model}-{key.version}-{os.getpid()}"
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        with self._alone(), suppress(FileNotFoundError):  # another process was first
            self.path(key).rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)
        with suppress(OSError):  # it holds another version, or a document
            self.path(key).parent.rmdir()

    def forget_scratch(self, kept: set[str]) -> None:
        """Removes what is left of fetches that nobody will finish; `kept` are names as `model-version`."""
        for path in self._scratch.iterdir() if self._scratch.is_dir() else ():
            if path.is_dir() and path.name not in kept:
                with _locked(self._scratch / f".{path.name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as is_ours:
                    if is_ours:
                        shutil.rmtree(path, ignore_errors=True)

    # Documents

    def write_document(self, model: str, content: bytes) -> None:
        """Replaces a model's document, and keeps it in the history; the server says why one cannot be read."""
        (self.directory / model).mkdir(exist_ok=True)
        with opened_directory(self.directory, (model,)) as directory:
            replace_file(directory, SERVING_NAME, content)
        with suppress(ServingRefused):
            self.write_history(model, document_from(content, SERVING_NAME).generation, content)

    def write_history(self, model: str, generation: int, content: bytes) -> None:
        with opened_directory(self.directory, (model, HISTORY), create=True) as directory:
            replace_file(directory, f"{generation}.json", content)

    def remove_document(self, model: str) -> None:
        with suppress(FileNotFoundError):
            (self.directory / model / SERVING_NAME).unlink()

    def models_with_documents(self) -> list[str]:
        return sorted(path.parent.name for path in self.directory.glob(f"*/{SERVING_NAME}"))

    def path(self, key: VersionKey) -> Path:
        return self.directory / key.model / str(key.version)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _locked(self.directory.parent / ".lock", fcntl.LOCK_EX):
            yield


@contextmanager
def _locked(path: Path, how: int) -> Iterator[bool]:
    """Holds a lock; False where another process has it and `how` says not to wait."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _file_tags(directory: Path, version: StoredVersion) -> dict[str, str]:
    """The tags of the files that were fetched; objects that no manifest names may change unnoticed."""
    return {
        path: found.tag
        for path, found in version.objects.items()
        if path not in (MANIFEST_NAME, SIGNATURE_NAME) and (directory / path).is_file()
    }


def _read_record(path: Path, size_bytes: int) -> Copied:
    try:
        with (path / _RECORD).open("rb") as file:
            found = orjson.loads(file.read(_MOST_RECORD_BYTES))
        tags = {str(path): str(tag) for path, tag in found.get("file_tags", {}).items()}  # older records have none
        return Copied(size_bytes, str(found["manifest_tag"]), str(found["signature_tag"]), float(found["order"]), tags)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not fetched by us
        return Copied(size_bytes, "", "", 0.0)


def _sync_tree(directory: Path) -> None:
    """Flushes all files, so that a crash after the rename cannot leave a version with empty files."""
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
