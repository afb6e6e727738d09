"""Reads and writes the objects of one repository, through obstore. Its errors name what to do and hold no secret.

Credentials and endpoints come from the environment, by the names that the clouds' own tools use (AWS_*, GOOGLE_*,
AZURE_*). Every request has a time limit, and large objects are read in pieces, so that no call waits for ever. A
command is told of a request that takes long; servers are not, because they ask in threads of their own.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.service.errors import RepositoryError, SettingsError
from saccade.service.repository.object_store.contents import StoredObject

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

PIECE_BYTES = 8 * 1024 * 1024  # within `_PIECE_S` at 112 kbit/s
MOST_OBJECTS = 200_000  # of one repository; their names take about 100 MB
_REQUEST_S = 10.0  # for a listing's page or a document, and without any byte of a piece
_PIECE_S = 600.0  # a bound for the whole of a piece, which a slow line must not reach
_UPLOAD_S = 60.0  # for a part of a file
_SLOW_S = 1.0  # until a command is told what it waits for
_EMPTY_PART = re.compile(r'Path "(.*?)" contained empty', re.DOTALL)
_BAD_PART = re.compile(r'Path "(.*?)": Encountered illegal character sequence "(.*?)" whilst', re.DOTALL)
_STATUS = re.compile(r"\b[45]\d\d [A-Z][a-z]+(?: [A-Z][a-z]+)*")


told_when_slow: ContextVar[Callable[[str], None] | None] = ContextVar("told_when_slow", default=None)
"""Called with the URL and what is asked of it, from another thread, when a request takes long. Commands set it."""


class StoreUnreadable(RepositoryError):
    """A request failed: the store denies it, does not answer, or has no such bucket."""


class ObjectChanged(RepositoryError):
    """The object is no longer the one that was listed or read."""


class ObjectExists(RepositoryError):
    """There is an object of this key already."""


class ObjectMissing(StoreUnreadable):
    """There is no object of this key."""


class InvalidKey(StoreUnreadable):
    """A key that no path can stand for, with `..` or a control character; it hides all that is listed with it."""


@dataclass(frozen=True, slots=True)
class ReadObject:
    """The bytes of an object, and what a conditional write compares."""

    content: bytes
    condition: dict[str, str]


class Store:
    """The objects below a repository's prefix. Every method raises StoreUnreadable where a request fails."""

    def __init__(self, store: ObjectStore, url: str, prefix: str = "", limits: Limits | None = None) -> None:
        """`prefix` is what the keys of `store` begin with, such as `models/`; most stores have it within them.

        `limits` are the same store with other time limits, for large objects.
        """
        self.url = url
        self._store = store
        self._prefix = prefix
        self._limits = limits or Limits(store, store)

    def objects(self, prefix: str = "", after: str = "") -> list[StoredObject]:
        """Every object below a prefix, which ends with a slash or is empty; on request those with greater keys alone.

        Raises InvalidKey for a key that is no path.
        """
        import obstore

        found: list[StoredObject] = []
        offset = f"{self._prefix}{after}" if after else None
        with self._translated(f"list {prefix}"):
            for page in obstore.list(self._store, f"{self._prefix}{prefix}" or None, offset=offset):
                found += [self._object(each) for each in page]
                if len(found) > MOST_OBJECTS:
                    raise StoreUnreadable(f"{self.url} has more than {MOST_OBJECTS:,} objects; use a prefix of its own")
        return found

    def level(self, prefix: str = "") -> tuple[list[StoredObject], list[str]]:
        """The objects directly below a prefix, and the prefixes directly below it, each with a slash at its end.

        Raises InvalidKey for one that is no path.
        """
        import obstore

        with self._translated(f"list {prefix}"):
            found = obstore.list_with_delimiter(self._store, f"{self._prefix}{prefix}" or None)
            below = sorted(f"{self._key(name).rstrip('/')}/" for name in found["common_prefixes"])
            return [self._object(each) for each in found["objects"]], below

    def piece(self, found: StoredObject, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`. Raises ObjectChanged where the object is not the listed one."""
        import obstore

        options: Any = {"range": (start, end)}
        if found.is_etag:
            options["if_match"] = found.tag
        with self._translated(found.key):
            return bytes(obstore.get(self._limits.reads, f"{self._prefix}{found.key}", options=options).bytes())

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
            store = self._limits.uploads if isinstance(content, Path) else self._store
            obstore.put(store, key, content, mode=mode, use_multipart=None if mode is None else False)

    def _object(self, meta: ObjectMeta) -> StoredObject:
        etag = meta["e_tag"]
        is_strong = etag is not None and not etag.startswith("W/")  # a weak one never matches
        tag = etag or meta["last_modified"].isoformat()
        return StoredObject(self._key(meta["path"]), meta["size"], tag, is_strong)

    def _key(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    def _translated(self, what: str) -> _Translated:
        return _Translated(f"{self.url}: {what}".rstrip())


@dataclass(frozen=True, slots=True)
class Limits:
    """One store under the time limits of large objects."""

    reads: ObjectStore  # limited between bytes, not as a whole
    uploads: ObjectStore


class _Translated:
    """Turns obstore's errors, whose texts hold whole answers of the store, into ours, and tells of slow requests."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        tell = told_when_slow.get()
        if tell is not None:
            self._timer = threading.Timer(_SLOW_S, tell, (self._what,))
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from obstore import exceptions

        if self._timer is not None:
            self._timer.cancel()

        if error is None or isinstance(error, RepositoryError):
            return
        match error:
            case exceptions.AlreadyExistsError():
                raise ObjectExists(f"{self._what}: it exists already") from None
            case exceptions.PreconditionError():
                raise ObjectChanged(f"{self._what}: it changed meanwhile") from None
            case exceptions.InvalidPathError():
                raise InvalidKey(f"{self._what}: {_why_no_path(error)}; rename it") from None
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
    try:
        if url.startswith("https://"):  # obstore lists the keys of a web server from its root on
            host, _, prefix = url.removeprefix("https://").partition("/")
            quick, *others = [HTTPStore.from_url(f"https://{host}", **options) for options in _options()]
            return Store(quick, url, f"{prefix}/" if prefix else "", Limits(*others))
        opened = [from_url(url, **options) for options in _options()]
        return Store(opened[0], url, limits=Limits(*opened[1:]))
    except (BaseError, ValueError) as error:
        raise SettingsError(f"{url} cannot be opened: {_reason(error)}") from None


def _options() -> list[dict[str, Any]]:
    """Options of the client: for listings and documents, for reading large objects, and for uploads."""
    # Given options replace what obstore reads of its client from the environment, so this one is read here.
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    common = {"connect_timeout": f"{min(5.0, _REQUEST_S):g}s", "allow_http": allow_http}
    # A request that got no answer is not repeated, because by then it has taken the time of all attempts.
    retries = {"max_retries": 2, "retry_timeout": timedelta(seconds=_REQUEST_S)}
    reads = {"timeout": timedelta(seconds=_PIECE_S), "read_timeout": timedelta(seconds=_REQUEST_S)}
    # No read timeout for uploads: it would run while a part is being sent.
    limits = ({"timeout": timedelta(seconds=_REQUEST_S)}, reads, {"timeout": timedelta(seconds=_UPLOAD_S)})
    return [{"client_options": {**common, **each}, "retry_config": retries} for each in limits]


def pieces(store: Store, found: StoredObject) -> Iterator[bytes]:
    """An object from its beginning to its end, in pieces of bounded size. Raises as `Store.piece` does."""
    for start in range(0, found.size, PIECE_BYTES):
        yield store.piece(found, start, min(found.size, start + PIECE_BYTES))


def _why_no_path(error: BaseException) -> str:
    """What is wrong with a key, which is named as far as it can be printed; it names an object, and is no secret."""
    text = str(error)
    if found := _EMPTY_PART.search(text):
        return f"key {found[1][:200]!r} has an empty part"
    if found := _BAD_PART.search(text):
        what = "part" if found[2] in (".", "..") else "character"
        return f"key {found[1][:200]!r} has the {what} {found[2][:20]!r}"
    return "a key is no path"


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
