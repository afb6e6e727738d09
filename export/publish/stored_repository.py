"""Publishes into an object store: takes a number by one conditional write, uploads the files, and the manifest last.

A version whose manifest is missing is none: servers do not see it, and its number is not used again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from saccade.export.errors import PublishError
from saccade.export.publish.signing import Signer, sign_version
from saccade.models.contract.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_VERSION,
    Manifest,
    ManifestError,
    manifest_from_bytes,
)
from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.address import claim_copy
from saccade.service.repository.object_store.contents import Contents, contents_of
from saccade.service.repository.object_store.fetch import fetch_version
from saccade.service.repository.object_store.store import ObjectExists, Store, opened_store
from saccade.service.repository.signature import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, claimed_key_id

TAKEN = ".taken"  # in a version's place from its beginning on: who took the number


class StoredRepository:
    """A repository in an object store, for a publisher. Methods raise PublishError where the store refuses them."""

    def __init__(self, url: str, store: Store | None = None) -> None:
        self._url = url
        self._store = store or opened_store(url)

    def manifests(self, model: str) -> list[Manifest]:
        """All manifests that can be read, oldest first."""
        found = []
        with self._explained("read"):
            contents = self._contents(model)
            for number in contents.numbers(model):
                key = contents.versions[VersionKey(model, number)].objects[MANIFEST_NAME].key
                read = self._store.read(key, MAX_MANIFEST_BYTES)
                try:
                    found += [] if read is None else [manifest_from_bytes(read.content)]
                except ManifestError:  # the service reports it
                    continue
        return found

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory for what is to be uploaded, in this account's cache."""
        try:
            directory = Path(tempfile.mkdtemp(prefix=".publishing-", dir=claim_copy(self._url).parent))
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)
        except OSError as error:
            reason = error.strerror or error
            raise PublishError(f"cannot write what is to be uploaded: {reason}; no version was added") from error

    def add_samples(self, directory: Path) -> None:
        """Uploads sample images, over those that are there."""
        with self._explained("write samples to"):
            for path in _files(directory):
                self._store.write(path.relative_to(directory).as_posix(), path)

    def add_version(self, model: str, scratch: Path, finish: Callable[[int], None]) -> int:
        """Uploads `scratch` under the next free number and returns it; `finish(number)` writes what depends on it."""
        with self._explained("publish into"):
            number = self._take_number(model)
            finish(number)
            late = [
                scratch / SIGNATURE_NAME,
                scratch / MANIFEST_NAME,
            ]  # a server that requires one never sees it unsigned
            for path in [*(path for path in _files(scratch) if path not in late), *late]:
                key = f"{model}/{number}/{path.relative_to(scratch).as_posix()}"
                if path == scratch / MANIFEST_NAME:
                    self._create(key, path.read_bytes())
                elif path.exists():
                    self._store.write(key, path)
        return number

    def key_id(self, model: str, number: int, signer: Signer | None) -> str | None:
        """Signs a version that was there already, where there is a signer; returns whose signature it has."""
        with self._explained("sign in"), self.scratch() as scratch:
            directory = scratch / model / str(number)
            directory.mkdir(parents=True)
            if signer is not None:
                fetch_version(self._store, self._contents(model).versions[VersionKey(model, number)], directory)
                if sign_version(directory, signer):
                    content = (directory / SIGNATURE_NAME).read_bytes()
                    self._store.write(f"{model}/{number}/{SIGNATURE_NAME}", content)
            else:
                read = self._store.read(f"{model}/{number}/{SIGNATURE_NAME}", MAX_SIGNATURE_BYTES)
                if read is not None:
                    (directory / SIGNATURE_NAME).write_bytes(read.content)
            return claimed_key_id(directory)

    def ensure_readable(self) -> None:
        """Raises PublishError before an export of an hour, and not after it, where the store cannot be read."""
        with self._explained("read"):
            self._store.level()

    def path(self, model: str, number: int) -> str:
        return f"{self._url}/{model}/{number}"

    def _take_number(self, model: str) -> int:
        """Takes the next number for this publisher alone; the object that says so stays."""
        while True:
            number = max(self._contents(model).numbers(model, begun=True), default=0) + 1
            if number > MAX_VERSION:
                raise PublishError(f"{model} has no number left; publish under another name")
            try:
                self._store.create(f"{model}/{number}/{TAKEN}", datetime.now(UTC).isoformat().encode())
            except ObjectExists:  # another publisher was first
                continue
            return number

    def _create(self, key: str, content: bytes) -> None:
        """Writes an object that must not be there, except for our own one, to which the answer was lost."""
        try:
            self._store.create(key, content)
        except ObjectExists:
            read = self._store.read(key, len(content))
            if read is None or read.content != content:
                raise

    def _contents(self, model: str) -> Contents:
        return contents_of(self._store.objects(f"{model}/"))

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except RepositoryError as error:
            raise PublishError(f"cannot {doing} {self._url}: {error}; no version was added") from error


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
