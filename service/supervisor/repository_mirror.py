"""Runs the copy of a repository in an object store: threads of its own, so that no loop waits for a store.

They are daemons: a server that stops does not wait for a download either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType

import structlog

from saccade.service.core import VersionKey
from saccade.service.errors import SettingsError
from saccade.service.repository.object_store.address import claim_copy, url_of
from saccade.service.repository.object_store.mirror import CopyRules, Mirror, MirrorState
from saccade.service.settings import Settings

log = structlog.get_logger()

_FETCHERS = 4  # a version that comes slowly holds up one of them
_PAUSE_S = 0.2  # between looks of a fetcher that finds nothing to do
_LATE_S = 30.0  # after this long a server starts with what has come, and the rest follows


class RepositoryMirror:
    """The copy of one repository, kept while the block runs."""

    def __init__(self, mirror: Mirror, poll_s: float) -> None:
        self._mirror = mirror
        self._poll_s = poll_s
        self._is_over = threading.Event()
        self.directory = mirror.directory

    def __enter__(self) -> RepositoryMirror:
        for name, run in (("looks", self._look), *((f"fetches-{number}", self._fetch) for number in range(_FETCHERS))):
            threading.Thread(target=run, name=f"mirror-{name}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()

    def wait_until_usable(self) -> None:
        """Returns once there is a version of every model, or after a while what has come; says what it waits for."""
        start_s = time.monotonic()
        said_s = 0.0
        while not self._mirror.may_start(is_late=time.monotonic() - start_s > _LATE_S):
            waited_s = time.monotonic() - start_s
            if waited_s >= said_s + _LATE_S:
                said_s = waited_s
                state = self._mirror.state
                log.info("waiting_for_versions", seconds=round(waited_s), problem=state.problem or "being fetched")
            self._is_over.wait(_PAUSE_S / 4)

    def waits_for(self) -> str:
        """Why there is nothing to serve yet, in words."""
        return f"waiting for the first versions: {self._mirror.state.problem or 'they are being fetched'}"

    def told(self, served: Collection[VersionKey], failed: Collection[VersionKey]) -> MirrorState:
        """Notes what the server knows, and returns what there is to tell of the store. It may wait for the disk."""
        self._mirror.told(served, failed)
        return self._mirror.state

    def is_damaged(self, key: VersionKey) -> bool:
        """Whether this machine changed its copy of a version, which is then fetched again. It hashes every file."""
        return not self._mirror.is_whole(key)

    def _look(self) -> None:
        self._again_and_again(self._mirror.look, lambda: self._poll_s)

    def _fetch(self) -> None:
        self._again_and_again(self._fetch_all, lambda: _PAUSE_S)

    def _fetch_all(self) -> None:
        while not self._is_over.is_set() and self._mirror.fetch_next():
            pass

    def _again_and_again(self, run: Callable[[], None], pause_s: Callable[[], float]) -> None:
        while not self._is_over.is_set():
            try:
                run()
            except Exception:  # the last stop: what was copied serves on, and the next look tries again
                log.exception("mirror_failed")
            self._is_over.wait(pause_s())


def repository_mirror(settings: Settings) -> RepositoryMirror | None:
    """The mirror that a server of these settings needs; None where its repository is a directory.

    Raises SettingsError, or RepositoryError for an address that cannot be.
    """
    url = url_of(settings.repository)
    if url is None:
        return None
    # Imported here: a repository in a directory needs nothing of object stores.
    from saccade.service.repository.object_store.copied import Copy
    from saccade.service.repository.object_store.store import opened_store

    store = opened_store(url)
    try:
        directory = claim_copy(url)
    except OSError as error:
        raise SettingsError(f"no copy of {url} can be kept: {error}; set XDG_CACHE_HOME") from error
    rules = CopyRules(
        settings.repository_cache_mb * 2**20,
        settings.versions_per_model,
        frozenset(VersionKey(model, version) for model, version in settings.pins.items()),
        settings.serving_dir,
    )
    return RepositoryMirror(Mirror(store, Copy(directory), rules), settings.repository_poll_ms / 1000)
