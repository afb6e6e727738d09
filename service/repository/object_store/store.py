"""Reads and writes the objects of one repository, through obstore. Its errors name what to do and hold no secret.

Credentials and endpoints come from the environment, by the names that the clouds' own tools use (AWS_*, GOOGLE_*,
AZURE_*). Every request has a time limit, and large objects are read in pieces, so that no call waits for ever.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.service.errors import RepositoryError, SettingsError
from saccade.service.repository.object_store.contents import StoredObject

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PIECE_BYTES = 8 * 1024 * 1024  # within the time limit at 1.1 Mbit/s
MOST_OBJECTS = 200_000  # of one repository; their names take about 100 MB
_REQUEST_S = 60.0
_STATUS = re.compile(r"\b[45]\d\d [A-Z][a-z]+(?: [A-Z][a-z]+)*")


class StoreUnreadable(RepositoryError):
    """A request failed: the store denies it, does not answer, or has no such bucket."""


class ObjectChanged(RepositoryError):
    """The object is no longer the one that was listed or read."""


class ObjectExists(RepositoryError):
    """There is an object of this key already."""


class ObjectMissing(StoreUnreadable):
    """There is no object of this key."""


class InvalidKey(StoreUnreadable):
    """A key that no path can stand for, such as one with `..`; it hides everything that is listed with it."""


@dataclass(frozen=True, slots=True)
class ReadObject:
    """The bytes of an object, and what a conditional write compares."""

    content: bytes
    condition: dict[str, str]


class Store:
    """The objects below a repository's prefix. Every method raises StoreUnreadable where a request fails."""

    def __init__(self, store: ObjectStore, url: str, prefix: str = "") -> None:
        """`prefix` is what the keys of `store` begin with, such as `models/`; most stores have it within them."""
        self.url = url
        self._store = store
        self._prefix = prefix

    def objects(self, prefix: str = "") -> list[StoredObject]:
        """Every object below a prefix, which ends with a slash or is empty. Raises InvalidKey for a key with `..`."""
        import obstore

        found: list[StoredObject] = []
        with self._translated(f"list {prefix}"):
            for page in obstore.list(self._store, f"{self._prefix}{prefix}" or None):
                for each in page:
                    etag = each["e_tag"]
                    tag = etag or each["last_modified"].isoformat()
                    is_strong = etag is not None and not etag.startswith("W/")  # a weak one never matches
                    found.append(StoredObject(self._key(each["path"]), each["size"], tag, is_strong))
                if len(found) > MOST_OBJECTS:
                    raise StoreUnreadable(f"{self.url} has more than {MOST_OBJECTS:,} objects; use a prefix of its own")
        return found

    def folders(self) -> list[str]:
        """The names directly below the prefix that have objects below them."""
        import obstore

        with self._translated("list"):
            found = obstore.list_with_delimiter(self._store, self._prefix or None)
            return sorted(self._key(name).rstrip("/") for name in found["common_prefixes"])

    def piece(self, found: StoredObject, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`. Raises ObjectChanged where the object is not the listed one."""
        import obstore

        options: Any = {"range": (start, end)}
        if found.is_etag:
            options["if_match"] = found.tag
        with self._translated(found.key):
            return bytes(obstore.get(self._store, f"{self._prefix}{found.key}", options=options).bytes())

    def read(self, key: str, most_bytes: int) -> ReadObject | None:
        """A small object, None where there is none; of one that is larger, `most_bytes` and one more."""
        import obstore

        try:
            with self._translated(key):
                result = obstore.get(self._store, f"{self._prefix}{key}")
                meta, content = result.meta, b""
                for chunk in result:
                    content += bytes(chunk)
                    if len(content) > most_bytes:
                        break
        except ObjectMissing:
            return None
        names = {"e_tag": meta["e_tag"], "version": meta["version"]}
        return ReadObject(content[: most_bytes + 1], {name: value for name, value in names.items() if value})

    def create(self, key: str, content: bytes) -> None:
        """Writes an object that is not there yet. Raises ObjectExists."""
        self._put(key, content, "create")

    def replace(self, key: str, content: bytes, before: ReadObject) -> None:
        """Writes an object if it is still the one that was read. Raises ObjectChanged."""
        self._put(key, content, before.condition)

    def write(self, key: str, content: bytes | Path) -> None:
        """Writes an object, whatever is there; a file in pieces."""
        self._put(key, content, None)

    def remove(self, key: str) -> None:
        import obstore

        with self._translated(key):
            obstore.delete(self._store, key)

    def _put(self, key: str, content: bytes | Path, mode: Any) -> None:
        import obstore

        if self.url.startswith("https://"):
            raise RepositoryError(f"{self.url} is read-only: publish to s3://, gs:// or az://, or to a directory")
        with self._translated(key):
            obstore.put(self._store, key, content, mode=mode, use_multipart=None if mode is None else False)

    def _key(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    def _translated(self, what: str) -> _Translated:
        return _Translated(f"{self.url}: {what}".rstrip())


class _Translated:
    """Turns obstore's errors, whose texts hold whole answers of the store, into ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from obstore import exceptions

        if error is None or isinstance(error, RepositoryError):
            return
        match error:
            case exceptions.AlreadyExistsError():
                raise ObjectExists(f"{self._what}: it exists already") from None
            case exceptions.PreconditionError():
                raise ObjectChanged(f"{self._what}: it changed meanwhile") from None
            case exceptions.InvalidPathError():
                raise InvalidKey(f"{self._what}: a key has an empty part, '.' or '..'; rename that object") from None
            case exceptions.NotFoundError() | FileNotFoundError():
                raise ObjectMissing(f"{self._what}: there is no such object") from None
            case exceptions.BaseError() | OSError() | ValueError():
                raise StoreUnreadable(f"{self._what}: {_reason(error)}") from None


def opened_store(url: str) -> Store:
    """Opens the store of a repository; nothing is asked of it yet. Raises SettingsError without obstore."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import HTTPStore, from_url
    except ImportError as error:
        raise SettingsError(f"{url} needs obstore: pip install 'saccade-serving[object-store]'") from error
    # Given options replace what obstore reads of its client from the environment, so this one is read here.
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    limits: Any = {"timeout": f"{_REQUEST_S:g}s", "connect_timeout": "5s", "allow_http": allow_http}
    retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=_REQUEST_S)}
    try:
        if url.startswith("https://"):  # obstore lists the keys of a web server from its root on
            host, _, prefix = url.removeprefix("https://").partition("/")
            base = HTTPStore.from_url(f"https://{host}", client_options=limits, retry_config=retries)
            return Store(base, url, f"{prefix}/" if prefix else "")
        return Store(from_url(url, client_options=limits, retry_config=retries), url)
    except (BaseError, ValueError) as error:
        raise SettingsError(f"{url} cannot be opened: {_reason(error)}") from None


def pieces(store: Store, found: StoredObject) -> Iterator[bytes]:
    """An object from its beginning to its end, in pieces of bounded size. Raises as `Store.piece` does."""
    for start in range(0, found.size, PIECE_BYTES):
        yield store.piece(found, start, min(found.size, start + PIECE_BYTES))


def _reason(error: BaseException) -> str:
    """Says what went wrong without the store's own words, in which keys and signatures may stand."""
    text = str(error)
    status = _STATUS.search(text)
    if status is not None and status[0][:3] in ("401", "403"):
        return f"{status[0]}: the credentials in the environment do not allow it"
    if status is not None and status[0].startswith("404"):
        return f"{status[0]}: no such bucket, or not in this region"
    if status is not None:
        return status[0]
    if "kind: Timeout" in text or "timed out" in text:
        return "no answer in time"
    if "kind: Connect" in text:
        return "it cannot be reached"
    return f"{type(error).__name__}; look at the address, and at the credentials in the environment"
