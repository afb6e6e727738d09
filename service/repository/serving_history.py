"""Changes `serving.json`: atomically, one generation after the other, keeping what was there before."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saccade.service.errors import RepositoryError
from saccade.service.repository.confined_files import names_in, opened_directory, read_file, replace_file
from saccade.service.repository.object_store.address import url_of_copy
from saccade.service.repository.serving_document import (
    MOST_DOCUMENT_BYTES,
    SERVING_NAME,
    ServingDocument,
    ServingRefused,
    document_bytes,
    document_from,
)

KEPT = 100  # documents per model
HISTORY = ".serving"  # a folder beside the versions; servers take a name with a dot for no version
_LOCK = ".lock"


class ServingConflict(RepositoryError):
    """Someone else changed the document meanwhile."""


def write_document(repository: Path, model: str, document: ServingDocument, expected_generation: int) -> None:
    """Replaces the document if its generation is the expected one; 0 means that there is none yet.

    The new document is kept in the history, too; of a copy of an object store, both are written to the store. Raises
    ServingConflict, or RepositoryError when it cannot be written.
    """
    url = url_of_copy(repository)
    if url is not None:
        # Imported here: a repository in a directory needs nothing of object stores.
        from saccade.service.repository.object_store.documents import StoredModel

        StoredModel(url, repository, model).write(document, expected_generation)
        return
    try:
        with _locked(repository, model):
            found = _generation(repository, model)
            if found != expected_generation:
                raise ServingConflict(
                    f"{SERVING_NAME} of {model!r} has generation {found}, expected was {expected_generation}: "
                    "someone else changed it; look at `saccade rollout status` and decide again"
                )
            content = document_bytes(document)
            with opened_directory(repository, (model, HISTORY)) as directory:
                replace_file(directory, f"{document.generation}.json", content)
                for generation in _generations(repository, model)[:-KEPT]:
                    os.unlink(f"{generation}.json", dir_fd=directory)
            with opened_directory(repository, (model,)) as directory:
                replace_file(directory, SERVING_NAME, content)
    except OSError as error:
        raise RepositoryError(f"cannot write {repository / model / SERVING_NAME}: {error.strerror}") from error


def serving_history(repository: Path, model: str, most: int = KEPT) -> list[ServingDocument]:
    """The last documents that were written, newest first; damaged ones are left out."""
    found = []
    for generation in _generations(repository, model)[: -most - 1 : -1]:
        try:
            with opened_directory(repository, (model, HISTORY)) as directory:
                name = f"{generation}.json"
                found.append(document_from(read_file(directory, name, MOST_DOCUMENT_BYTES), name))
        except (OSError, ServingRefused):
            continue
    return found


def _generations(repository: Path, model: str) -> list[int]:
    names = [name.removesuffix(".json") for name in names_in(repository, (model, HISTORY))]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _generation(repository: Path, model: str) -> int:
    """The generation of the present document, 0 without one; a damaged one counts as the newest of the history."""
    try:
        with opened_directory(repository, (model,)) as directory:
            return document_from(read_file(directory, SERVING_NAME, MOST_DOCUMENT_BYTES), SERVING_NAME).generation
    except FileNotFoundError:
        return 0
    except ServingRefused:
        return max(_generations(repository, model), default=0)


@contextmanager
def _locked(repository: Path, model: str) -> Iterator[None]:
    """Lets one writer at a time compare and replace."""
    with opened_directory(repository, (model, HISTORY), create=True) as directory:
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
