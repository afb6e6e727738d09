"""Marks that show who builds which plan right now: hints for people and other servers, which nothing relies on.

A builder leaves a small file beside the plans and renews it while it lives; a mark that was not renewed no longer
counts. Two builders of the same plan only waste time: the store keeps the first plan.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from saccade.models.contract.plans import PlanKey
from saccade.service.repository.confined_files import names_in, opened_directory, read_file, replace_file

FRESH_S = 60.0  # a builder that has not renewed its mark for so long is dead or cut off
_RENEW_S = 10.0
_PREFIX, _SUFFIX = ".building-", ".json"
_MOST_BYTES = 4096


class BuildMark(msgspec.Struct, frozen=True):
    """One build under way."""

    variant: str
    place: str  # directory name of the plan's key
    host: str
    pid: int
    stage: str
    share: float  # done share of the stage
    renewed: float  # seconds since the epoch, by the builder's clock

    @property
    def is_ours(self) -> bool:
        return self.host == socket.gethostname()


def build_marks(root: Path, model: str, version: int, now: float | None = None) -> tuple[BuildMark, ...]:
    """The fresh marks of a version; damaged ones, and those of a clock that was set back since, are skipped."""
    now = time.time() if now is None else now
    found: list[BuildMark] = []
    for variant in names_in(root, (model, str(version))):
        for name in names_in(root, (model, str(version), variant)):
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                mark = _try_read(root, (model, str(version), variant), name)
                if mark is not None and abs(now - mark.renewed) < FRESH_S:
                    found.append(mark)
    return tuple(found)


class MarkedBuild:
    """A build that shows its progress in a mark. It raises nothing: a mark that cannot be written is left out."""

    def __init__(self, root: Path, model: str, version: int, variant: str, key: PlanKey) -> None:
        self._root = root
        self._parts = (model, str(version), variant)
        self._name = f"{_PREFIX}{key.place}{_SUFFIX}"
        self._mark = BuildMark(variant, key.place, socket.gethostname(), os.getpid(), "reading", 0.0, 0.0)
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def tell(self, stage: str, share: float) -> None:
        """Sets the progress, which the next renewal writes; a new stage is written at once."""
        is_new = stage != self._mark.stage
        self._mark = msgspec.structs.replace(self._mark, stage=stage, share=round(share, 3))
        if is_new:
            self._renew()

    @contextmanager
    def shown(self) -> Iterator[MarkedBuild]:
        """Renews the mark in a thread until the block ends, then removes it."""
        self._renew()
        renewing = threading.Thread(target=self._keep_renewing, name="build-mark", daemon=True)
        renewing.start()
        try:
            yield self
        finally:
            self._is_over.set()
            renewing.join()
            with suppress(OSError), opened_directory(self._root, self._parts) as directory:
                os.unlink(self._name, dir_fd=directory)

    def _keep_renewing(self) -> None:
        while not self._is_over.wait(_RENEW_S):
            self._renew()

    def _renew(self) -> None:
        with self._lock, suppress(OSError), opened_directory(self._root, self._parts, create=True) as directory:
            content = msgspec.json.encode(msgspec.structs.replace(self._mark, renewed=time.time()))
            replace_file(directory, self._name, content)


def _try_read(root: Path, parts: tuple[str, ...], name: str) -> BuildMark | None:
    try:
        with opened_directory(root, parts) as directory:
            return msgspec.json.decode(read_file(directory, name, _MOST_BYTES), type=BuildMark)
    except (OSError, msgspec.DecodeError):  # removed meanwhile, or not a mark
        return None
