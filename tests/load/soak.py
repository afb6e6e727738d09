"""Hours of everything at once: `python -m tests.load.soak --minutes 30` (`make soak MINUTES=30`).

A server with the fake backend and three tasks; eight connections, of whose requests some have a damaged picture and
some leave before the answer; a new version every twenty seconds, a killed worker every minute. At the end: memory of
supervisor, HTTP processes and the files in shared memory may not rise, no file descriptor and no slot may be left over,
every request must have its outcome and every answer must be right, and the server's own counters must say what the
client saw. Exit code 1: not so, or not shown. Workers are not judged, since none of them lives for more than a minute.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import theilslopes

from saccade.models.contract.specs import Task
from tests.load.chaos import left_by
from tests.load.ledger import Entry, Plan, asking, counts, known_answers, p99_ms
from tests.support.images import red_png
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import publish_fake, remove

MOST_SLOPE = 1.0  # MiB an hour
_MIB = 2**20
_TASKS = {"classifier": Task.CLASSIFY, "detector": Task.DETECT, "segmenter": Task.SEGMENT}
_ROLLING = "classifier"
_VERSION_S, _KILL_S, _SAMPLE_S = 20.0, 60.0, 5.0
_WARM_SHARE = 0.3  # of the time, in which memory may rise
_KEPT_VERSIONS = 2
_END_S = 120.0  # for what the server still has to do, on a busy machine
_REFUSALS = ("overloaded", "unavailable", "deadline")
_SEEN_AS: dict[str, tuple[str, ...]] = {
    "ok": ("right", "wrong"),
    "bad_request": ("rejected",),
    "refused": ("refused",),
}
# Metrics of eight versions go at once, so memory rises and falls with this period; means of whole periods do not.
_PERIOD_S, _FEWEST_PERIODS = 8 * _VERSION_S, 5


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes that are not killed take at one moment."""

    at_s: float
    mibs: Mapping[str, float]  # by kind: unique memory of processes, and files in shared memory
    descriptors: int  # of all
    pids: tuple[int, ...] = ()

    @property
    def mib(self) -> float:
        return sum(self.mibs.values())


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a line through the means of whole periods behind the warm-up, as Theil and Sen draw it: MiB an hour.

    Samples of a period depend on each other, so that each of them alone would make the interval of 95 % too narrow.
    """

    mib_h: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mib_h:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


_UNKNOWN = Slope(float("nan"), float("-inf"), float("inf"))


def slope_of(at_s: Sequence[float], mib: Sequence[float]) -> Slope:
    at, values = np.array(at_s) - at_s[0], np.array(mib)
    period = at // _PERIOD_S
    whole = [period == number for number in range(int((at[-1] + _SAMPLE_S) // _PERIOD_S)) if (period == number).any()]
    if len(whole) < _FEWEST_PERIODS:
        return _UNKNOWN
    found = theilslopes([values[each].mean() for each in whole], [at[each].mean() for each in whole])
    return Slope(*(float(3600 * each) for each in (found.slope, found.low_slope, found.high_slope)))


@dataclass(frozen=True, slots=True)
class Soaked:
    samples: Sequence[Sample]
    entries: Sequence[Entry]
    counted: Mapping[str, float]  # `saccade_requests_total` by outcome
    slots_in_use: float
    versions: int
    kills: int
    left: Sequence[str] = ()  # names in shared memory after the server's end

    @property
    def warm(self) -> list[Sample]:
        start, end = self.samples[0].at_s, self.samples[-1].at_s
        return [each for each in self.samples if each.at_s >= start + _WARM_SHARE * (end - start)]

    @property
    def slope(self) -> Slope:
        return slope_of([each.at_s for each in self.warm], [each.mib for each in self.warm])

    @property
    def slopes(self) -> dict[str, Slope]:
        """By kind."""
        at_s = [each.at_s for each in self.warm]
        return {kind: slope_of(at_s, [each.mibs[kind] for each in self.warm]) for kind in self.warm[0].mibs}

    @property
    def longest_pause_s(self) -> float:
        """Between two samples, which shows how busy the machine was."""
        times = [each.at_s for each in self.samples]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


def complaints(soaked: Soaked) -> list[str]:
    """What was not so, or is not shown, in words."""
    seen, told = counts(soaked.entries), []
    told += [f"{seen[name]} requests {name}" for name in ("wrong", "failed", "broken", "silent") if seen.get(name)]
    slope = soaked.slope
    if len({each.pids for each in soaked.warm}) > 1:
        told.append("a process was replaced after the warm-up, so that memory is not told")
    elif slope.low > MOST_SLOPE:
        told.append(f"memory rises by {slope} MiB an hour, asked {MOST_SLOPE}")
    elif slope.high > MOST_SLOPE:
        told.append(f"memory is not settled: {slope} MiB an hour, asked {MOST_SLOPE}")
    grown = soaked.warm[-1].descriptors - soaked.warm[0].descriptors
    if grown > 0:
        told.append(f"{grown} file descriptors more than after the warm-up")
    if soaked.slots_in_use:
        told.append(f"{soaked.slots_in_use:.0f} slots in use at the end")
    if soaked.left:
        told.append(f"left in shared memory: {', '.join(soaked.left)}")
    for outcome, ours in _SEEN_AS.items():
        count = sum(seen.get(name, 0) for name in ours)
        # A client that left may have left before or after its outcome was counted.
        if not count <= soaked.counted.get(outcome, 0.0) <= count + seen.get("left", 0):
            told.append(f"the server counted {soaked.counted.get(outcome, 0):.0f} {outcome}, the client {count}")
    return told


def soaked(seconds: float, work: Path, connections: int, pause_s: float) -> Soaked:
    repository = work / "repository"
    for model, task in _TASKS.items():
        publish_fake(repository, model, 1, task)
    with running_server(repository, work, api_processes=2, versions_per_model=1) as server:
        pictures = [red_png(10 * number) for number in range(25)]
        known = {model: known_answers(server.client, model, pictures) for model in _TASKS}
        asked = len(pictures) * len(_TASKS)
        folder = server.runtime_dir()
        samples, versions, kills = [_sample(server, folder)], 1, 0
        counted = Counted(server)
        with asking(Plan(server.base_url, known, connections, 0.01, 0.01, pause_s=pause_s), work) as ended:
            start_s = time.monotonic()
            end_s, version_s, kill_s = start_s + seconds, start_s + _VERSION_S, start_s + _KILL_S
            while (now := time.monotonic()) < end_s:
                if now >= version_s:
                    versions, version_s = versions + 1, max(version_s, now - _VERSION_S / 2) + _VERSION_S
                    with suppress(httpx.TransportError):  # a busy machine; the next reading has all of it
                        counted.read()
                    publish_fake(repository, _ROLLING, versions)
                    if versions > _KEPT_VERSIONS:
                        remove(repository / _ROLLING / str(versions - _KEPT_VERSIONS))
                if now >= kill_s:
                    kill_s = now + _KILL_S
                    kills += _kill_worker(server)
                with suppress(psutil.Error):  # a process that is being replaced
                    samples.append(_sample(server, folder))
                _tell(samples[-1], start_s, versions, kills)
                time.sleep(max(0.0, min(now + _SAMPLE_S, end_s) - time.monotonic()))
            entries = ended()
        wait_until(server.is_ready, _END_S, what="ready at the end")
        wait_until(lambda: server.metric("saccade_slots_in_use") == 0, _END_S, "all slots are free")
        counted.read()
        slots = server.metric("saccade_slots_in_use")
    by_outcome = counted.by_outcome()
    by_outcome["ok"] -= asked
    by_outcome["refused"] = sum(by_outcome[name] for name in _REFUSALS)
    return Soaked(samples, entries, by_outcome, slots, versions, kills, left_by(server))


def _kill_worker(server: Server) -> int:
    """Returns how many were killed: none while one is being replaced."""
    workers = server.children("saccade.service.worker.process")
    for worker in workers:
        worker.kill()
    return len(workers)


class Counted:
    """`saccade_requests_total` as Prometheus has it: the series of versions that left keep their last value."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: dict[tuple[str, ...], float] = {}

    def read(self) -> None:
        text = self._server.client.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "saccade_requests_total":
                    self._seen[tuple(sample.labels[name] for name in ("outcome", "model", "version"))] = sample.value

    def by_outcome(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (outcome, *_), value in self._seen.items():
            found[outcome] += int(value)
        return found


def _sample(server: Server, folder: Path) -> Sample:
    """Raises psutil.Error for a process that has just ended."""
    processes = {"supervisor": [psutil.Process(server.process.pid)], "HTTP": server.api_processes()}
    mibs = {kind: sum(each.memory_full_info().uss for each in found) / _MIB for kind, found in processes.items()}
    files = [path for path in folder.rglob("*") if path.is_file()]
    mibs["files"] = sum(_bytes_of(path) for path in files) / _MIB
    pids = tuple(process.pid for found in processes.values() for process in found)
    open_files = [each for pid in pids for each in Path(f"/proc/{pid}/fd").iterdir()]
    return Sample(time.monotonic(), mibs, sum(not _is_connection(each) for each in open_files), pids)


def _bytes_of(path: Path) -> int:
    with suppress(OSError):  # it was just removed
        return path.stat().st_size
    return 0


def _is_connection(descriptor: Path) -> bool:
    """Connections of clients come and go; they are told by sockets, of which a leaked one would be one more."""
    with suppress(OSError):
        return descriptor.readlink().as_posix().startswith("socket:")
    return True


def _tell(sample: Sample, start_s: float, versions: int, kills: int) -> None:
    by_kind = ", ".join(f"{kind} {mib:.2f}" for kind, mib in sample.mibs.items())
    print(
        f"{sample.at_s - start_s:6.0f} s  {sample.mib:6.2f} MiB ({by_kind})  {sample.descriptors} descriptors  "
        f"{versions} versions  {kills} kills  load {os.getloadavg()[0]:.1f}",
        file=sys.stderr,
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--pause-ms", type=float, default=100.0, help="of each between an answer and a request")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = soaked(60 * given.minutes, Path(folder), given.connections, given.pause_ms / 1000)
    told = complaints(found)
    print(
        f"{given.minutes:g} minutes, {found.versions} versions, {found.kills} killed workers: {counts(found.entries)}, "
        f"p99 {p99_ms(found.entries):.0f} ms; memory {found.warm[0].mib:.1f} -> {found.warm[-1].mib:.1f} MiB after the "
        f"warm-up, an hour {found.slope} MiB: {', '.join(f'{kind} {each}' for kind, each in found.slopes.items())}; "
        f"descriptors {found.warm[0].descriptors} -> {found.warm[-1].descriptors}; the longest pause between samples "
        f"{found.longest_pause_s:.0f} s of {_SAMPLE_S:g}"
    )
    print("; ".join(told) or "kept")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
