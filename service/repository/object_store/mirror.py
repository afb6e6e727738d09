"""Keeps a copy of a repository in an object store. `contents.py` decides; this looks, fetches and puts in place.

`look` lists the store and brings the documents, which takes a request or two. `fetch_next` fetches one version, which
may take minutes; several threads may call it while another one looks, so that nothing waits for a large version.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from saccade.models.contract.manifest import ManifestError
from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.repository.object_store.contents import (
    LOOKS_UNTIL_GONE,
    Attempt,
    Contents,
    Copied,
    StoredVersion,
    absences,
    by_name,
    changed_in_store,
    contents_of,
    failed_again,
    gone,
    has_new_signature,
    is_due,
    leaving,
    may_start,
    refusal,
    wanted,
)
from saccade.service.repository.object_store.copied import Copy
from saccade.service.repository.object_store.fetch import VersionRefused, fetch_version, is_whole
from saccade.service.repository.object_store.listing import Listing, listing
from saccade.service.repository.object_store.store import ObjectChanged, Store
from saccade.service.repository.open import RefusedDirectory
from saccade.service.repository.serving_document import (
    MOST_DOCUMENT_BYTES,
    SERVING_NAME,
    ServingRefused,
    document_path,
    read_document,
)
from saccade.service.repository.signature import MAX_SIGNATURE_BYTES, SIGNATURE_NAME

log = structlog.get_logger()

EMPTY = "the object store shows no version, so what is there stays; another version must appear to replace it"


@dataclass(frozen=True, slots=True)
class CopyRules:
    """What the copy is to hold: its bound, and which versions a server of it serves."""

    bound_bytes: int
    versions_per_model: int
    pinned: frozenset[VersionKey] = frozenset()
    serving_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class MirrorState:
    """What to tell of the store: why it cannot be read, versions that are not copied, and what befell copied ones."""

    problem: str = ""
    refused: tuple[RefusedDirectory, ...] = ()
    notices: tuple[tuple[VersionKey, str], ...] = ()


class Mirror:
    """One copy and its store. Any thread may call any method."""

    def __init__(self, store: Store, copy: Copy, rules: CopyRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._copy = copy
        self._rules = rules
        self._clock = clock
        self._lock = threading.Lock()  # over everything below
        self._contents: Contents | None = None  # of the last complete listing
        self._copied: dict[VersionKey, Copied] = copy.versions()
        self._wanted: list[VersionKey] = []
        self._attempts: dict[VersionKey, Attempt] = {}
        self._fetching: dict[VersionKey, int] = {}  # bytes
        self._absent: dict[VersionKey, int] = {}
        self._served: Collection[VersionKey] = ()
        self._failed: Collection[VersionKey] = ()
        self._looked_through: set[VersionKey] = set()  # copies that a server refused, and that are whole
        self._document_tags: dict[str, str] = {}
        self._absent_documents: dict[str, int] = {}
        self._problem = ""
        self._unread: dict[tuple[str, str], str] = {}  # why a model, or a file of it, cannot be read

    @property
    def directory(self) -> Path:
        return self._copy.directory

    @property
    def state(self) -> MirrorState:
        with self._lock:
            contents = self._contents or Contents()
            refused = [*contents.refused]
            refused += [RefusedDirectory(model, name, reason) for (model, name), reason in self._unread.items()]
            refused += [
                RefusedDirectory(key.model, str(key.version), attempt.reason)
                for key, attempt in sorted(self._attempts.items(), key=lambda item: by_name(item[0]))
                if key not in self._copied and key in contents.versions
            ]
            notices = [
                (key, text)
                for key, copied in self._copied.items()
                if key in contents.versions and (text := changed_in_store(contents.versions[key], copied))
            ]
            return MirrorState(self._problem, tuple(refused), tuple(notices))

    def told(self, served: Collection[VersionKey], failed: Collection[VersionKey]) -> None:
        """Notes which versions a server knows, which stay, and which of them failed, in whose place older ones come."""
        with self._lock:
            self._served, self._failed = frozenset(served), frozenset(failed)

    def may_start(self, *, is_late: bool) -> bool:
        with self._lock:
            return may_start(
                self._contents,
                self._copied,
                [key for key, attempt in self._attempts.items() if attempt.retry_s is None],
                self._rules.pinned,
                is_unreadable=bool(self._problem),
                is_late=is_late,
            )

    # A look

    def look(self) -> None:
        """Lists the store, brings changed documents, and drops what has gone. Raises nothing: `state` says what was."""
        try:
            found = listing(self._store, known_models={key.model for key in self._copied})
            contents = contents_of(found.objects)
            unread = {(each.model, each.name): each.reason for each in found.refused}
            unread |= self._follow_documents(contents, found)
            self._take(contents)
            self._drop_gone(contents, found)
            unread |= self._follow_copies(contents)
            with self._lock:
                self._unread = unread
        except (RepositoryError, OSError) as error:
            self._note_problem(str(error))
            return
        nothing = not contents.versions and bool(self._copied)
        self._note_problem(f"{self._store.url}: {EMPTY}" if nothing else found.problem)

    def _note_problem(self, problem: str) -> None:
        with self._lock:
            is_news, self._problem = problem != self._problem, problem
        if is_news and problem:
            log.error("object_store_unreadable", reason=problem, kept=len(self._copied))
        elif is_news:
            log.info("object_store_readable", url=self._store.url)

    def _follow_documents(self, contents: Contents, found: Listing) -> dict[tuple[str, str], str]:
        """Returns why a document cannot be read; the one of before rules on, and other models are not held up."""
        unread = {}
        for model, document in contents.documents.items():
            if self._document_tags.get(model) == document.tag:
                continue
            try:
                read = self._store.read(document.key, MOST_DOCUMENT_BYTES)  # the server refuses one that is too large
            except RepositoryError as error:
                unread[model, SERVING_NAME] = str(error)
                continue
            if read is not None:
                self._copy.write_document(model, read.content)
                self._document_tags[model] = document.tag
        for model in self._copy.models_with_documents() if contents.versions else ():
            is_seen = model in contents.documents or not found.hidden.isdisjoint(("", f"{model}/"))
            count = 0 if is_seen else self._absent_documents.get(model, 0) + 1
            self._absent_documents[model] = count
            if count >= LOOKS_UNTIL_GONE:
                self._copy.remove_document(model)
                self._document_tags.pop(model, None)
        return unread

    def _take(self, contents: Contents) -> None:
        named = {*self._rules.pinned, *self._named(contents)}
        with self._lock:
            self._contents = contents
            self._copied = self._copy.versions()
            self._wanted = wanted(contents, named, self._failed, self._rules.versions_per_model)
            self._attempts = {key: each for key, each in self._attempts.items() if key in contents.versions}
            unfinished = {f"{key.model}-{key.version}" for key in {*self._wanted, *self._fetching}}
        self._copy.forget_scratch(unfinished)

    def _named(self, contents: Contents) -> list[VersionKey]:
        named = []
        for model in sorted({key.model for key in contents.versions}):
            try:
                document = read_document(document_path(self.directory, self._rules.serving_dir, model))
            except ServingRefused:  # the server says why
                continue
            named += [VersionKey(model, number) for number in (document.named if document else ())]
        return named

    def _drop_gone(self, contents: Contents, found: Listing) -> None:
        present = [
            key for key in list(self._copied) if not found.hides(key.model, key.version)
        ]  # a fetch may make room meanwhile
        self._absent = absences(self._absent, present, contents)
        for key in gone(self._absent):
            log.info("version_removed_from_store", **key.fields)
            self._drop(key)
            self._absent.pop(key)

    def _drop(self, key: VersionKey) -> None:
        self._copy.drop(key)
        with self._lock:
            self._copied.pop(key, None)
            self._looked_through.discard(key)

    def _follow_copies(self, contents: Contents) -> dict[tuple[str, str], str]:
        """Brings signatures that were added later, and drops damaged copies, so that they are fetched again.

        Returns why a signature cannot be read.
        """
        unread = {}
        for key, copied in list(self._copied.items()):
            version = contents.versions.get(key)
            if version is None:
                continue
            if has_new_signature(version, copied):
                try:
                    self._sign(version)
                except RepositoryError as error:
                    unread[key.model, str(key.version)] = str(error)
            if key in self._failed and key not in self._looked_through:
                if self.is_whole(key):
                    self._looked_through.add(key)
                else:
                    log.error("copy_damaged", **key.fields)
                    self._drop(key)
        return unread

    def _sign(self, version: StoredVersion) -> None:
        found = version.objects[SIGNATURE_NAME]
        read = self._store.read(found.key, MAX_SIGNATURE_BYTES)
        if read is not None:
            self._copy.sign(version, read.content, found.tag)
            log.info("version_signature_fetched", **version.key.fields)

    def is_whole(self, key: VersionKey) -> bool:
        """Whether the copy of a version has the bytes that its manifest names; it hashes every file."""
        try:
            return is_whole(self._copy.path(key))
        except (OSError, ManifestError):
            return False

    # A fetch

    def fetch_next(self) -> bool:
        """Fetches the most wanted version that is due; returns whether there was one."""
        version = self._chosen()
        if version is None:
            return False
        try:
            self._fetch(version)
        finally:
            with self._lock:
                self._fetching.pop(version.key, None)
        return True

    def _chosen(self) -> StoredVersion | None:
        with self._lock:
            now_s = self._clock()
            contents = self._contents or Contents()
            for key in self._wanted:
                version = contents.versions.get(key)
                if version is None or key in self._copied or key in self._fetching:
                    continue
                if not is_due(version, self._attempts.get(key), now_s):
                    continue
                reason = refusal(version, self._rules.bound_bytes)
                if reason is not None:
                    self._attempts[key] = Attempt(version.tags, reason)
                    continue
                if self._has_room(version, now_s):
                    self._fetching[key] = version.size_bytes
                    return version
        return None

    def _has_room(self, version: StoredVersion, now_s: float) -> bool:
        needed = version.size_bytes + sum(self._fetching.values())
        kept = {*self._wanted, *self._served}
        leaves = leaving(self._copied, kept, needed, self._rules.bound_bytes)
        if leaves is None:
            reason = (
                f"its {version.size_bytes / 2**20:,.0f} MiB find no room beside what is served in the "
                f"{self._rules.bound_bytes / 2**20:,.0f} MiB of SACCADE_REPOSITORY_CACHE_MB"
            )
            self._attempts[version.key] = failed_again(version, self._attempts.get(version.key), reason, now_s)
            return False
        for key in leaves:
            log.info("copy_left", **key.fields, for_version=f"{version.key.model}/{version.key.version}")
            self._copy.drop(key)
            del self._copied[key]
        return True

    def _fetch(self, version: StoredVersion) -> None:
        start_s = self._clock()
        try:
            with self._copy.scratch(version) as scratch:
                if scratch is None:  # another process of this account fetches it
                    self._fail(version, "another process fetches it")
                    return
                fetch_version(self._store, version, scratch)
                self._copy.place(scratch, version, time.time())
        except VersionRefused as error:
            with self._lock:
                self._attempts[version.key] = Attempt(version.tags, str(error))
            return
        except ObjectChanged as error:
            self._fail(version, f"{error}; it is looked at again")
            return
        except RepositoryError as error:
            self._fail(version, f"it cannot be fetched, and is tried again: {error}")
            return
        except OSError as error:
            self._fail(version, f"it cannot be kept in {self.directory}, and is tried again: {error.strerror}")
            return
        with self._lock:
            self._attempts.pop(version.key, None)
            self._copied = self._copy.versions()
        seconds = round(self._clock() - start_s, 2)
        log.info("version_fetched", **version.key.fields, megabytes=round(version.size_bytes / 1e6, 1), seconds=seconds)

    def _fail(self, version: StoredVersion, reason: str) -> None:
        with self._lock:
            before = self._attempts.get(version.key)
            self._attempts[version.key] = failed_again(version, before, reason, self._clock())
