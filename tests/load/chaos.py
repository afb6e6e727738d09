"""Faults under load, with a ledger of every request: `python -m tests.load.chaos` (`make chaos`).

A real server with the fake backend, which answers at once and misbehaves when told to; sixteen connections ask two of
its models without a pause. Each fault gets a server of its own, as often as --times says. No answer may be wrong, no
request without an outcome, nothing may be left in shared memory, and every request must be answered rightly again in
the time that the fault's kind has. Faults that cost no process must not be felt at all. Exit code 1: a bound is missed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import psutil

from saccade.models.contract.specs import Task
from tests.load.chaos_faults import FAULTS, HANG_TIMEOUT_MS, OTHER, TARGET, Fault, NotAllowedHere
from tests.load.ledger import Entry, Plan, asking, counts, known_answers, p99_ms, right_again_s
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import publish_fake

MOST_P99 = 1.5  # times that before a fault which must not be felt
CONNECTIONS = 16
_CALM_S = 5.0
_FIRST_S = 2.0  # of the calm time, while connections are made and processes run their code for the first time
_AFTER_S = 3.0  # behind the time in which everything must be right again
_PICTURES = 20
_SHARED_MEMORY = Path("/dev/shm")
_STEPS = ("worker_hangs", "api_process_hangs", "worker_died", "api_process_died", "worker_connected", "version_ready")


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault on one server."""

    entries: Sequence[Entry]
    at_s: float  # of the fault
    left: Sequence[str] = ()  # names in shared memory after the server's end
    exit_code: int = 0
    steps: str = ""  # of the recovery, each in seconds from the fault on

    @property
    def later(self) -> list[Entry]:
        return [each for each in self.entries if each.end_s >= self.at_s]

    @property
    def back_s(self) -> float:
        """Of the slower of both models; infinity: not at all."""
        times = [right_again_s(self.entries, model, self.at_s) for model in (TARGET, OTHER)]
        return max(float("inf") if each is None else each for each in times)

    @property
    def slower(self) -> float:
        """The 99th percentile from the fault on, as a multiple of that of the calm time, once clients are under way."""
        begun_s = min(each.sent_s for each in self.entries) + _FIRST_S
        calm = [each for each in self.entries if each.sent_s >= begun_s and each.end_s < self.at_s]
        return p99_ms(self.later) / p99_ms(calm)


def complaints(fault: Fault, trial: Trial) -> list[str]:
    """What the trial shows that the fault may not cost, in words; empty: nothing."""
    found, told = counts(trial.later), []
    if found.get("wrong"):
        told.append(f"{found['wrong']} wrong answers")
    if found.get("silent"):
        told.append(f"{found['silent']} requests without an outcome")
    if found.get("broken") and not fault.breaks:
        told.append(f"{found['broken']} connections ended without an answer")
    if found.get("unreachable"):
        told.append(f"{found['unreachable']} connections could not be made")
    if trial.back_s > fault.right_again_s:
        told.append(f"right again after {trial.back_s:.1f} s, asked {fault.right_again_s:g}")
    if not fault.is_felt and trial.slower > MOST_P99:
        told.append(f"p99 {trial.slower:.2f} times that before, asked {MOST_P99}")
    if trial.left:
        told.append(f"left in shared memory: {', '.join(trial.left)}")
    if trial.exit_code:
        told.append(f"the server ended with {trial.exit_code}")
    return told


def tried(fault: Fault, work: Path) -> Trial:
    repository = _published(work)
    settings = {"hang_timeout_ms": HANG_TIMEOUT_MS, "api_processes": 2}
    command = (sys.executable, "-m", "saccade.service")
    with (
        fault.place(work) as place,
        running_server(
            repository,
            place.folder,
            program=(*place.program, *command),
            environment={"XDG_CACHE_HOME": str(place.folder / "cache")},
            **settings,
        ) as server,
    ):
        with asking(_plan(server), work) as ended:
            time.sleep(_CALM_S)
            at_s, at = time.monotonic(), datetime.now(UTC)
            fault.inject(server, repository)
            done_s = max(time.monotonic(), at_s + fault.right_again_s)
            time.sleep(max(0.0, done_s + _AFTER_S - time.monotonic()))
            entries = ended()
        steps = _steps(server, at)
        exit_code = server.stop()
    return Trial(entries, at_s, left_by(server), exit_code, steps)


def _steps(server: Server, at: datetime) -> str:
    """When the log first told each step after `at`: it says where the time of a recovery went."""
    times = {
        name: [(datetime.fromisoformat(event["timestamp"]) - at).total_seconds() for event in server.events(name)]
        for name in _STEPS
    }
    first = {name: min((s for s in seconds if s > 0), default=None) for name, seconds in times.items()}
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in first.items() if seconds is not None)


def told_to_end(work: Path, *, keeps_alive: bool = True) -> list[str]:
    """SIGTERM under load. Returns what was lost, in words.

    A request of the last moment meets a port that nobody listens on any more, which a balancer sends elsewhere.
    """
    repository = _published(work)
    with (
        running_server(repository, work, api_processes=2, drain_delay_ms=1000) as server,
        asking(replace(_plan(server), keeps_alive=keeps_alive), work) as ended,
    ):
        time.sleep(_CALM_S)
        at_s = time.monotonic()
        server.terminate()
        exit_code = server.wait()
        gone_s = time.monotonic()
        entries = ended()
    lost = [each for each in entries if each.outcome == "broken"]
    wrong = [each for each in entries if each.outcome in ("wrong", "silent")]
    told = [f"{len(lost)} requests lost"] if lost else []
    told += [f"{len(wrong)} wrong or without an outcome"] if wrong else []
    told += [f"ended with {exit_code}"] if exit_code else []
    left = left_by(server)
    told += [f"left in shared memory: {', '.join(left)}"] if left else []
    print(f"  SIGTERM: ended after {gone_s - at_s:.1f} s; {counts(entries)}", flush=True)
    return told


def without_supervisor(work: Path) -> list[str]:
    """SIGKILL of the supervisor: its children leave, and the next server removes what it left."""
    repository = _published(work)
    with running_server(repository, work) as server:
        family, killed = server.family(), server
        server.process.send_signal(signal.SIGKILL)
        start_s = time.monotonic()
        _, alive = psutil.wait_procs(family, timeout=15)
        seconds = time.monotonic() - start_s
    with running_server(repository, work) as server:
        again_s = time.monotonic() - start_s
        told = [] if server.predict(TARGET, red_png(7)).status_code == 200 else ["the next server does not answer"]
    told += [f"{len(alive)} children stay"] if alive else []
    left = [*left_by(killed), *left_by(server)]
    told += [f"left in shared memory: {', '.join(left)}"] if left else []
    print(f"  supervisor killed: children gone after {seconds:.1f} s, the next one serves after {again_s:.1f} s")
    return told


def _published(work: Path) -> Path:
    """A repository with both models."""
    repository = work / "repository"
    publish_fake(repository, TARGET, 1)
    publish_fake(repository, OTHER, 1, Task.SEGMENT)
    return repository


def _plan(server: Server) -> Plan:
    pictures = [red_png(10 * number) for number in range(_PICTURES)]
    known = {model: known_answers(server.client, model, pictures) for model in (TARGET, OTHER)}
    return Plan(server.base_url, known, CONNECTIONS)


def left_by(server: Server) -> list[str]:
    """Names in shared memory; tensor slots are files of the runtime folder too."""
    return sorted(path.name for path in _SHARED_MEMORY.glob(f"*saccade-{server.process.pid}-*"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.chaos", description=__doc__)
    parser.add_argument("--only", default="*", help="faults whose name matches, such as 'worker*'")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args(arguments)
    missed = 0
    for fault in (each for each in FAULTS if fnmatch(each.name, given.only)):
        for _ in range(given.times):
            try:
                with tempfile.TemporaryDirectory() as folder:
                    trial = tried(fault, Path(folder))
            except NotAllowedHere as error:
                print(f"{fault.name}: not tried: {error}", flush=True)
                break
            told = complaints(fault, trial)
            missed += bool(told)
            back = (
                f"right again after {trial.back_s:.1f} s (asked {fault.right_again_s:g})"
                if fault.is_felt
                else "not felt"
            )
            print(
                f"{fault.name}: {'; '.join(told) or f'kept: {back}'}\n  {counts(trial.later)}, p99 {trial.slower:.2f} "
                f"times that before; {trial.steps}",
                flush=True,
            )
    without_keep_alive = partial(told_to_end, keeps_alive=False)
    endings = {
        "SIGTERM": told_to_end,
        "SIGTERM, a connection per request": without_keep_alive,
        "supervisor killed": without_supervisor,
    }
    for name, ending in endings.items():
        for _ in range(given.times if fnmatch(name, given.only) else 0):
            with tempfile.TemporaryDirectory() as folder:
                told = ending(Path(folder))
            missed += bool(told)
            print(f"{name}: {'; '.join(told) or 'kept'}", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
