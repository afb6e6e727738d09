"""What commands see of a repository in an object store: this account's copy, with what the command needs in it.

A repository in a directory is returned as it is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saccade.models.contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.address import claim_copy, url_of, url_of_copy
from saccade.service.repository.open import RefusedDirectory

if TYPE_CHECKING:
    from saccade.service.repository.object_store.contents import StoredVersion
    from saccade.service.repository.object_store.store import Store

Wanted = Callable[[VersionKey], bool]


@dataclass(frozen=True, slots=True)
class Brought:
    """A directory to read versions from, and what of them an object store did not give."""

    directory: Path
    incomplete: dict[VersionKey, str] = field(default_factory=dict)  # why; manifest and signature are there if readable
    unlisted: list[RefusedDirectory] = field(default_factory=list)


def place(_context: click.Context, _parameter: click.Parameter, root: Path) -> Path:
    """The directory to work on: the repository itself, or the copy of one in an object store."""
    url = url_of(root)
    if url is not None:
        say_what_is_waited_for()
    return root if url is None else _claimed(url)


def _claimed(url: str) -> Path:
    """The directory of this account's copy. Raises RepositoryError."""
    try:
        return claim_copy(url)
    except OSError as error:
        raise RepositoryError(f"no copy of {url} can be kept: {error}; set XDG_CACHE_HOME") from error


def say_what_is_waited_for() -> None:
    """Has requests of this command that take long named on stderr, the first of them alone."""
    from saccade.service.repository.object_store.store import told_when_slow

    said: list[str] = []

    def say(what: str) -> None:
        if not said:
            said.append(what)
            click.echo(f"waiting for {what}", err=True)

    told_when_slow.set(say)


def refresh(root: Path, model: str) -> None:
    """Brings document and history of a model as they are in the store now. Raises RepositoryError."""
    url = url_of_copy(root)
    if url is not None:
        from saccade.service.repository.object_store.documents import StoredModel

        StoredModel(url, root, model).refresh()


def stored_keys(repository: Path) -> list[VersionKey] | None:
    """The versions that an object store holds; None for a directory. Raises RepositoryError or SettingsError."""
    url = url_of(repository)
    if url is None:
        return None
    from saccade.service.repository.object_store.contents import by_name, contents_of
    from saccade.service.repository.object_store.listing import listing
    from saccade.service.repository.object_store.store import opened_store

    say_what_is_waited_for()
    return sorted(contents_of(listing(opened_store(url)).objects).versions, key=by_name)


def brought(repository: Path, model: str | None, version: str | None) -> tuple[Path, str | None, str | None]:
    """The directory, model and version to work with; from an object store the version is fetched into the copy.

    Without a number it is the newest, without a model the only one. Raises RepositoryError naming those there are.
    """
    url, keys = url_of(repository), stored_keys(repository)
    if url is None or keys is None:
        return repository, model, version
    from saccade.service.repository.object_store.documents import StoredModel

    found = [key for key in keys if model in (None, key.model) and version in (None, str(key.version))]
    if len({key.model for key in found}) != 1:
        known = ", ".join(f"{key.model}/{key.version}" for key in keys) or "none"
        raise RepositoryError(f"{url} has {'no such version' if not found else 'several models'}; there are: {known}")
    root = _claimed(url)
    StoredModel(url, root, found[-1].model).bring(found[-1].version)
    return root, found[-1].model, str(found[-1].version)


@contextmanager
def manifests_of(root: Path) -> Iterator[Path]:
    """A repository in which every version has its manifest and signature; only a directory has the other files, too."""
    with _brought(root, lambda key: True, is_whole=False) as found:
        yield found.directory


@contextmanager
def versions_of(root: Path, wanted: Wanted) -> Iterator[Brought]:
    """A repository in which the wanted versions are as the store has them now. Raises RepositoryError."""
    with _brought(root, wanted, is_whole=True) as found:
        yield found


@contextmanager
def _brought(root: Path, wanted: Wanted, *, is_whole: bool) -> Iterator[Brought]:
    url = url_of_copy(root)
    if url is None:
        yield Brought(root)
        return
    # Imported here: a repository in a directory needs nothing of object stores.
    from saccade.service.repository.object_store.contents import contents_of
    from saccade.service.repository.object_store.listing import listing
    from saccade.service.repository.object_store.store import opened_store

    store = opened_store(url)
    listed = listing(store)
    contents = contents_of(listed.objects)
    directory = Path(tempfile.mkdtemp(prefix=".asked-", dir=root.parent))
    found = Brought(directory, unlisted=[*listed.refused, *contents.refused])
    try:
        for key, version in contents.versions.items():
            if not wanted(key):
                continue
            target = directory / key.model / str(key.version)
            target.mkdir(parents=True)
            if not is_whole:
                _bring_manifest(store, version, target)
                continue
            reason = _bring_whole(store, version, target)
            if reason is not None:
                found.incomplete[key] = reason
        yield found
    except OSError as error:
        raise RepositoryError(f"cannot write to {directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _bring_whole(store: Store, version: StoredVersion, target: Path) -> str | None:
    """Fetches a version; one that does not come whole has its manifest and signature alone. Returns why."""
    from saccade.service.repository.object_store.fetch import fetch_version

    try:
        fetch_version(store, version, target)
    except RepositoryError as error:
        with suppress(RepositoryError):
            _bring_manifest(store, version, target)
        return str(error)
    return None


def _bring_manifest(store: Store, version: StoredVersion, target: Path) -> None:
    from saccade.service.repository.signature import MAX_SIGNATURE_BYTES, SIGNATURE_NAME

    for name, most in ((MANIFEST_NAME, MAX_MANIFEST_BYTES), (SIGNATURE_NAME, MAX_SIGNATURE_BYTES)):
        read = store.read(version.objects[name].key, most) if name in version.objects else None
        if read is not None:
            (target / name).write_bytes(read.content)
