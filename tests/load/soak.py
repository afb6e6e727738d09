"""Hours of everything at once: `python -m tests.load.soak --minutes 30` (`make soak MINUTES=30`).

A server with the fake backend and three tasks; eight connections, of whose requests some have a damaged picture and
some leave before the answer; a new version every twenty seconds, a killed worker every minute. At the end: memory of
HTTP processes and supervisor may not rise, no file descriptor and no slot may be left over, every request must have its
outcome and every answer must be right, and the server's own counters must say what the client saw. Exit code 1: not so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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
_REFUSALS = ("overloaded", "unavailable", "deadline")
_SEEN_AS: dict[str, tuple[str, ...]] = {
    "ok": ("right", "wrong"),
    "bad_request": ("rejected",),
    "refused": ("refused",),
}
_MINUTE_S, _FEWEST_MINUTES = 60.0, 5


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes that are not killed take at one moment: supervisor first, then HTTP processes."""

    at_s: float
    mibs: tuple[float, ...]  # unique memory of each
    descriptors: int  # of all

    @property
    def mib(self) -> float:
        return sum(self.mibs)


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
    def slope_mib_h(self) -> tuple[float, float, float]:
        """Of a line through the means of each minute behind the warm-up, as Theil and Sen draw it, and its interval.

        Samples of a minute are alike, so that each of them alone would make the interval too narrow.
        """
        warm = self.warm
        minute = np.array([(each.at_s - warm[0].at_s) // _MINUTE_S for each in warm])
        at, mib = (np.array([getattr(each, name) for each in warm]) for name in ("at_s", "mib"))
        means = [[values[minute == each].mean() for each in np.unique(minute)] for values in (mib, at)]
        if len(means[0]) < _FEWEST_MINUTES:
            return (float("nan"),) * 3
        found = theilslopes(*means)
        return tuple(float(3600 * each) for each in (found.slope, found.low_slope, found.high_slope))  # type: ignore[return-value]


def complaints(soaked: Soaked) -> list[str]:
    """What was not so, in words."""
    seen, told = counts(soaked.entries), []
    told += [f"{seen[name]} requests {name}" for name in ("wrong", "failed", "broken", "silent") if seen.get(name)]
    slope, low, high = soaked.slope_mib_h
    if low > MOST_SLOPE:
        told.append(f"memory rises by {slope:.1f} MiB an hour ({low:.1f} to {high:.1f}), asked {MOST_SLOPE}")
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


def soaked(seconds: float, work: Path, connections: int) -> Soaked:
    repository = work / "repository"
    for model, task in _TASKS.items():
        publish_fake(repository, model, 1, task)
    settings = {"api_processes": 2, "versions_per_model": 1, "hang_timeout_ms": 5000}
    with running_server(repository, work, **settings) as server:
        pictures = [red_png(10 * number) for number in range(25)]
        known = {model: known_answers(server.client, model, pictures) for model in _TASKS}
        asked = len(pictures) * len(_TASKS)
        samples, versions, kills = [_sample(server)], 1, 0
        counted = Counted(server)
        with asking(Plan(server.base_url, known, connections, 0.01, 0.01), work) as ended:
            start_s = time.monotonic()
            end_s, version_s, kill_s = start_s + seconds, start_s + _VERSION_S, start_s + _KILL_S
            while (now := time.monotonic()) < end_s:
                if now >= version_s:
                    versions, version_s = versions + 1, now + _VERSION_S
                    counted.read()
                    publish_fake(repository, _ROLLING, versions)
                    if versions > _KEPT_VERSIONS:
                        remove(repository / _ROLLING / str(versions - _KEPT_VERSIONS))
                if now >= kill_s:
                    kills, kill_s = kills + 1, now + _KILL_S
                    server.worker().kill()
                samples.append(_sample(server))
                _tell(samples[-1], start_s, versions, kills)
                time.sleep(min(_SAMPLE_S, max(0.0, end_s - time.monotonic())))
            entries = ended()
        wait_until(server.is_ready, what="ready at the end")
        server.wait_idle()
        counted.read()
        slots = server.metric("saccade_slots_in_use")
    by_outcome = counted.by_outcome()
    by_outcome["ok"] -= asked
    by_outcome["refused"] = sum(by_outcome[name] for name in _REFUSALS)
    return Soaked(samples, entries, by_outcome, slots, versions, kills, left_by(server))


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


def _sample(server: Server) -> Sample:
    mibs, descriptors = [], 0
    for process in (psutil.Process(server.process.pid), *server.api_processes()):
        mibs.append(process.memory_full_info().uss / _MIB)
        descriptors += sum(not _is_connection(each) for each in Path(f"/proc/{process.pid}/fd").iterdir())
    return Sample(time.monotonic(), tuple(mibs), descriptors)


def _is_connection(descriptor: Path) -> bool:
    """Connections of clients come and go; they are told by sockets, of which a leaked one would be one more."""
    with suppress(OSError):
        return descriptor.readlink().as_posix().startswith("socket:")
    return True


def _tell(sample: Sample, start_s: float, versions: int, kills: int) -> None:
    print(
        f"{sample.at_s - start_s:6.0f} s  {sample.mib:6.2f} MiB ({' '.join(f'{each:.2f}' for each in sample.mibs)})  "
        f"{sample.descriptors} descriptors  "
        f"{versions} versions  {kills} kills",
        file=sys.stderr,
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = soaked(60 * given.minutes, Path(folder), given.connections)
    told = complaints(found)
    slope, low, high = found.slope_mib_h
    print(
        f"{given.minutes:g} minutes, {found.versions} versions, {found.kills} killed workers: {counts(found.entries)}, "
        f"p99 {p99_ms(found.entries):.0f} ms; memory {found.warm[0].mib:.1f} -> {found.warm[-1].mib:.1f} MiB after the "
        f"warm-up ({slope:+.1f} MiB an hour, {low:+.1f} to {high:+.1f}), descriptors {found.warm[0].descriptors} -> "
        f"{found.warm[-1].descriptors}"
    )
    print("; ".join(told) or "kept")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
