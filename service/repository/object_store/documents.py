"""Changes a model's document in an object store: by a conditional write, so that of two writers one wins.

The document is written first and its history after it, because a history that is written first would keep the document
of a writer who lost. Servers follow by their next look at the store.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.contents import Contents, contents_of
from saccade.service.repository.object_store.copied import Copy
from saccade.service.repository.object_store.fetch import fetch_version
from saccade.service.repository.object_store.listing import listing
from saccade.service.repository.object_store.store import ObjectChanged, ObjectExists, ReadObject, opened_store
from saccade.service.repository.serving_document import (
    MOST_DOCUMENT_BYTES,
    SERVING_NAME,
    ServingDocument,
    ServingRefused,
    document_bytes,
    document_from,
)
from saccade.service.repository.serving_history import HISTORY, ServingConflict

_log = logging.getLogger(__name__)  # not structlog's, which writes to the stdout of programs that print JSON


class StoredModel:
    """One model of a repository in an object store, for a writer; `directory` is this account's copy."""

    def __init__(self, url: str, directory: Path, model: str) -> None:
        self._store = opened_store(url)
        self._copy = Copy(directory)
        self._model = model

    def refresh(self) -> list[int]:
        """Brings document and history into the copy as they are now, and returns the numbers of all versions.

        Raises RepositoryError.
        """
        contents = self._contents()
        read = self._store.read(f"{self._model}/{SERVING_NAME}", MOST_DOCUMENT_BYTES)
        try:
            if read is None:
                self._copy.remove_document(self._model)
            elif self._model in {key.model for key in contents.versions}:
                self._copy.write_document(self._model, read.content)
            self._refresh_history()
        except OSError as error:
            raise RepositoryError(f"cannot write to {self._copy.directory}: {error.strerror}") from error
        return contents.numbers(self._model)

    def bring(self, number: int) -> Path:
        """Fetches a version into the copy where it is not there, and returns its directory. Raises RepositoryError."""
        key = VersionKey(self._model, number)
        path = self._copy.path(key)
        if path.is_dir():
            return path
        version = self._contents().versions.get(key)
        if version is None:
            raise RepositoryError(f"{self._store.url} has no {self._model}/{number}")
        try:
            with self._copy.scratch(version) as scratch:
                if scratch is None:
                    raise RepositoryError(f"{self._model}/{number} is being fetched by another process; try again")
                fetch_version(self._store, version, scratch)
                self._copy.place(scratch, version, time.time())
        except OSError as error:
            raise RepositoryError(f"cannot write to {self._copy.directory}: {error.strerror}") from error
        return path

    def write(self, document: ServingDocument, expected_generation: int) -> None:
        """Writes the document if the one that is there has the expected generation; 0 means that there is none.

        Raises ServingConflict, or RepositoryError.
        """
        key = f"{self._model}/{SERVING_NAME}"
        before = self._store.read(key, MOST_DOCUMENT_BYTES)
        found = self._generation(before)
        content = document_bytes(document)
        try:
            if found != expected_generation:
                raise ObjectChanged(key)
            if before is None:
                self._store.create(key, content)
            else:
                self._store.replace(key, content, before)
        except (ObjectChanged, ObjectExists) as error:
            now = self._store.read(key, MOST_DOCUMENT_BYTES)
            if (
                now is None or now.content != content
            ):  # equal: the answer to our own write was lost, and it was repeated
                raise ServingConflict(
                    f"{SERVING_NAME} of {self._model!r} has generation {self._generation(now)}, expected was "
                    f"{expected_generation}: someone else changed it; look at `saccade rollout status` and decide again"
                ) from error
        try:
            self._store.write(f"{self._model}/{HISTORY}/{document.generation}.json", content)
        except RepositoryError as error:  # the document rules all the same
            _log.warning("generation %d of %s is not in its history: %s", document.generation, self._model, error)

    def _generation(self, read: ReadObject | None) -> int:
        """The generation of a document, 0 without one; a damaged one counts as the newest of the history."""
        if read is None:
            return 0
        try:
            return document_from(read.content, SERVING_NAME).generation
        except ServingRefused:
            return max(self._stored_history(), default=0)

    def _contents(self) -> Contents:
        return contents_of(listing(self._store, f"{self._model}/").objects)

    def _stored_history(self) -> dict[int, str]:
        """The keys of the history by generation."""
        keys = [each.key for each in self._store.objects(f"{self._model}/{HISTORY}/")]
        stems = {key.rpartition("/")[2].removesuffix(".json"): key for key in keys}
        return {int(stem): key for stem, key in stems.items() if stem.isascii() and stem.isdigit()}

    def _refresh_history(self) -> None:
        for generation, key in self._stored_history().items():
            if not (self._copy.directory / self._model / HISTORY / f"{generation}.json").exists():
                read = self._store.read(key, MOST_DOCUMENT_BYTES)
                if read is not None:
                    self._copy.write_history(self._model, generation, read.content)
