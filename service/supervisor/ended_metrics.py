"""What processes counted that have ended: one file per kind of metric holds the sums, however many ended.

A counter of a process that ended must stay in what is scraped, or it would seem to begin anew. Its file alone would
stay for ever, too, with all versions that the process knew: a worker that ends again and again would fill the memory
that holds the files, and lengthen each scrape.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import structlog
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from saccade.service.core import VersionState
from saccade.service.ipc.messages import Catalog
from saccade.service.ipc.metric_files import file_content, locked_alone
from saccade.service.ipc.retired_versions import Names, RetiredVersions, versions_named

log = structlog.get_logger()

_ENDED = "ended"  # in place of the process id in a file's name


class EndedMetrics:
    """The sums, without the versions whose series the running processes let go; only one event loop may call it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pids: list[int] = []  # whose files are not in the sums yet
        self._present: set[Names] = set()
        self._served: set[Names] = set()  # present versions that were ready once, and so have series
        self._retired = RetiredVersions()
        self._are_versions_gone = False
        self._has_failed = False

    def ended(self, pid: int) -> None:
        """Removes the live gauges of a process that ended, and takes the rest into the sums."""
        mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]  # untyped upstream
        self._pids.append(pid)
        self.settle()

    def follow(self, catalog: Catalog) -> None:
        """Lets the series of versions go when the running processes do."""
        self._present = {(status.model, str(status.version)) for status in catalog.versions}
        ready = {
            (status.model, str(status.version)) for status in catalog.versions if status.state == VersionState.READY
        }
        for names in self._present:
            self._retired.came(names)
        for names in sorted(self._served - self._present):
            self._are_versions_gone |= bool(self._retired.left(names))
        self._served = (self._served | ready) & self._present
        self.settle()

    def settle(self) -> None:
        """Does what is left to do, unless a scrape reads at this moment: call it again. It takes some milliseconds."""
        if not (self._pids or self._are_versions_gone):
            return
        try:
            with locked_alone(self._directory) as is_alone:
                if is_alone:
                    self._add_up()
                    self._pids, self._are_versions_gone = [], False
        except OSError as error:  # shared memory is full; what is left to do is tried again
            if not self._has_failed:
                log.warning("metrics_not_added_up", reason=error.strerror)
            self._has_failed = True

    def _add_up(self) -> None:
        by_kind: dict[str, list[Path]] = defaultdict(list)
        whose = {_ENDED, *map(str, self._pids)}
        for path in list(self._directory.iterdir()):  # not by patterns, of which pathlib remembers the last 128
            kind, _, who = path.stem.rpartition("_")
            if who in whose and path.suffix == ".db":
                by_kind[kind].append(path)
            elif who in whose:  # its process ended while it rewrote a file
                path.unlink()
        for kind, paths in by_kind.items():
            self._write(kind, paths)

    def _write(self, kind: str, paths: Iterable[Path]) -> None:
        sums: dict[str, float] = defaultdict(float)
        for path in paths:
            for key, value in _read(path):
                sums[key] += value
        kept = self._present.union(self._retired.kept)
        fresh = self._directory / f"{kind}_{_ENDED}.new"
        of_kept = {key: value for key, value in sums.items() if versions_named(json.loads(key)[2]) <= kept}
        fresh.write_bytes(file_content(of_kept))  # in a mapped file, full memory would end this process
        for path in paths:
            path.unlink()
        fresh.rename(self._directory / f"{kind}_{_ENDED}.db")


def _read(path: Path) -> list[tuple[str, float]]:
    """Returns series and values; none of a file that its process had only begun to make."""
    try:
        values = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]  # untyped upstream
        return [(key, value) for key, value, *_ in values]
    except (struct.error, RuntimeError, ValueError) as error:
        log.warning("metrics_unreadable", file=path.name, reason=str(error))
        return []
