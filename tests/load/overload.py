"""Goodput, latency and refusals while more is asked than can be served. Promises: a server that runs is left running.

    python -m tests.load.overload URL MODEL --images DIR            a server that is already there, as it is
    python -m tests.load.overload --simulated                       a server of its own, with a model of known cost
    python -m tests.load.overload URL MODEL --images DIR --beside URL    two servers in turns, at the same rate

Measures capacity first (a closed loop), then sends a multiple of it with a deadline, as clients would that do not know
of each other. The limits are the project's own: exit code 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from saccade.service.bench.coordinator import ClientLimits, Closed, default_processes
from saccade.service.bench.images import ImageFile, read_images
from saccade.service.bench.report import Report
from saccade.service.bench.schedule import Poisson
from saccade.service.bench.session import Open, Session, check_server, measure
from saccade.service.bench.workload import ModelShare, RequestShape, endpoint_of, workload_of
from saccade.service.settings import core_count
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import publish_fake

COST = b"a batch takes 8 ms, an image takes 4 ms"  # 200 images/s in batches of eight
SIMULATED = "costly"
GOODPUT_RATIO = 0.9
REFUSAL_MS = 20.0
GROWTH_MIB = 16.0
_TIMEOUT_S = 30.0
_MAX_IN_FLIGHT = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent."""

    objective_ms: float = 200.0
    times_capacity: float = 2.0
    seconds: float = 60.0
    warm_up_s: float = 3.0
    capacity_s: float = 10.0
    in_flight: int = 32  # of the closed loop
    processes: int = 1
    names_deadline: bool = True  # False: what an unmodified client sends; the server's own bound decides


@dataclass(frozen=True, slots=True)
class Outcome:
    capacity_rps: float
    report: Report
    growth_mib: float | None  # of all server processes; None where they are not ours to see


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is asked, and for what."""

    url: str
    model: str
    images: Sequence[ImageFile]

    def session(self, asked: Asked, *query: tuple[str, str]) -> Session:
        limits = ClientLimits(asked.processes, 64, _MAX_IN_FLIGHT, _TIMEOUT_S)
        endpoint, shape = endpoint_of(self.url), RequestShape(query=query)
        workload = workload_of([ModelShare(self.model, 1.0, tuple(self.images))], endpoint, shape)
        return Session(self.url, endpoint, workload, shape, limits, 1, asked.warm_up_s, asked.objective_ms)


def capacity_rps(subject: Subject, asked: Asked) -> float:
    """Answers per second of a closed loop. Raises BenchFailed."""
    free = subject.session(asked)
    check_server(free)
    run = measure(free, Closed(asked.in_flight, asked.capacity_s, asked.warm_up_s), lambda live, s: None)
    return run.report.throughput_rps


def overloaded(subject: Subject, asked: Asked, rate_rps: float) -> Report:
    """What became of so many requests a second. Raises BenchFailed."""
    load = Open(Poisson(rate_rps, asked.warm_up_s + asked.seconds))
    query = [("deadline_ms", f"{asked.objective_ms:g}")] if asked.names_deadline else []
    session = subject.session(asked, *query)
    return measure(session, load, lambda live, s: None).report


def measured(subject: Subject, asked: Asked, server: Server | None) -> Outcome:
    """Capacity, then overload. Raises BenchFailed."""
    capacity = capacity_rps(subject, asked)
    before_mib = 0.0 if server is None else _memory_mib(server)
    report = overloaded(subject, asked, asked.times_capacity * capacity)
    growth_mib = None if server is None else _memory_mib(server) - before_mib
    return Outcome(capacity, report, growth_mib)


def in_turns(subjects: Sequence[Subject], asked: Asked, rounds: int) -> Iterator[tuple[float, list[Report]]]:
    """By round, the capacity of the server that is first, and each one's report at a multiple of it."""
    for number in range(rounds):
        order = range(len(subjects)) if number % 2 == 0 else range(len(subjects) - 1, -1, -1)
        capacity = capacity_rps(subjects[order[0]], asked)
        found = {index: overloaded(subjects[index], asked, asked.times_capacity * capacity) for index in order}
        yield capacity, [found[index] for index in sorted(found)]


def row(report: Report, capacity: float) -> str:
    """One line: goodput over capacity, p99 of answers and of refusals, share of requests that were answered 504, and
    p99 of how late the client itself was.
    """
    latency, refusals = (0.0 if each is None else each.p99_ms for each in (report.latency, report.refusals))
    expired = sum(item.count for item in report.outcomes if item.status == 504) / report.requests
    late = f"{report.client.lag_p99_ms:5.1f} ms"
    return f"{report.goodput_rps / capacity:.2f} x  {latency:5.0f} ms  {refusals:5.0f} ms  {expired:5.1%}  {late}"


def failures(outcome: Outcome, asked: Asked) -> list[str]:
    """The limits that were missed, in words."""
    report, found = outcome.report, []
    if report.goodput_rps < GOODPUT_RATIO * outcome.capacity_rps:
        found.append(f"goodput {report.goodput_rps:.0f}/s is below {GOODPUT_RATIO:g} x {outcome.capacity_rps:.0f}/s")
    if report.latency is None or report.latency.p99_ms > asked.objective_ms:
        found.append(f"p99 of accepted requests is not within {asked.objective_ms:g} ms")
    if report.refusals is not None and report.refusals.p99_ms > REFUSAL_MS:
        found.append(f"p99 of refusals is {report.refusals.p99_ms:.1f} ms, more than {REFUSAL_MS:g} ms")
    if report.failed > round(report.refused_rate * report.requests):
        found.append("requests failed that were not refused: " + ", ".join(_others(report)))
    if outcome.growth_mib is not None and outcome.growth_mib > GROWTH_MIB:
        found.append(f"memory grew by {outcome.growth_mib:.0f} MiB")
    return found


def table(outcome: Outcome, asked: Asked) -> str:
    report = outcome.report
    lines = [
        f"capacity          {outcome.capacity_rps:8.1f} images/s (closed loop of {asked.in_flight})",
        f"offered           {report.offered_rps:8.1f} /s for {report.load.window_s:.0f} s, "
        f"{'deadline' if asked.names_deadline else 'no deadline named, objective'} {asked.objective_ms:g} ms",
        f"goodput           {report.goodput_rps:8.1f} /s, {report.goodput_rps / outcome.capacity_rps:.2f} x capacity",
    ]
    for name, latency in (("accepted", report.latency), ("refused", report.refusals)):
        if latency is not None:
            lines.append(
                f"{name:12} ms  p50 {latency.p50_ms:8.1f}  p99 {latency.p99_ms:8.1f}  p99.9 {latency.p99_9_ms:8.1f}  "
                f"max {latency.max_ms:8.1f}"
            )
    client = report.client
    lines.append(f"client            {client.cpu_cores:8.2f} cores, p99 of its own lateness {client.lag_p99_ms:.1f} ms")
    lines.extend(f"{item.count:8} x {item.label}" for item in report.outcomes)
    if outcome.growth_mib is not None:
        lines.append(f"memory            {outcome.growth_mib:+8.1f} MiB over the run")
    return "\n".join(lines)


def _others(report: Report) -> list[str]:
    return [f"{item.count} x {item.label}" for item in report.outcomes if item.status not in (200, 429, 503, 504)]


def _memory_mib(server: Server) -> float:
    """Private memory of a server of ours; shared slots are counted once touched and stay."""
    total = 0
    for process in (psutil.Process(server.process.pid), *server.family()):
        memory = process.memory_full_info()
        total += memory.uss
    return total / 2**20


@contextmanager
def simulated_server(workspace: Path, cost: bytes = COST, **settings: object) -> Iterator[Server]:
    """A server with one model whose run times are known."""
    repository = workspace / "repository"
    publish_fake(repository, SIMULATED, 1, content=cost)
    with running_server(repository, workspace, **settings) as server:
        yield server


def simulated_images() -> list[ImageFile]:
    return [ImageFile(f"{red}.png", "image/png", red_png(red)) for red in range(40, 60)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("model", nargs="?", default=SIMULATED)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--beside", metavar="URL", help="of another server with this model")
    parser.add_argument("--rounds", type=int, default=5, help="with --beside")
    parser.add_argument("--objective-ms", type=float, default=200.0)
    parser.add_argument("--times", type=float, default=2.0, help="of capacity")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--in-flight", type=int, default=32, help="of the closed loop that measures capacity")
    parser.add_argument("--no-deadline", action="store_true", help="requests name none: the server's default counts")
    given = parser.parse_args()
    if given.simulated == (given.url is not None and given.images is not None):
        parser.error("give either --simulated, or URL MODEL and --images DIR")
    asked = Asked(
        given.objective_ms,
        given.times,
        given.seconds,
        in_flight=given.in_flight,
        processes=default_processes(core_count()),
        names_deadline=not given.no_deadline,
    )
    if given.beside:
        pictures = list(read_images(given.images))
        subjects = [Subject(url, given.model, pictures) for url in (given.url, given.beside)]
        print("goodput, p99 of answers, of refusals, 504, p99 of the client's own lateness: URL | --beside")
        for capacity, reports in in_turns(subjects, asked, given.rounds):
            print(f"{capacity:6.0f}/s  " + "  |  ".join(row(report, capacity) for report in reports), flush=True)
        return 0
    with ExitStack() as stack:
        server, url, images = None, given.url, []
        if given.simulated:
            workspace = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(simulated_server(workspace, objective_ms=0))
            url, images = server.base_url, simulated_images()
        else:
            images = list(read_images(given.images))
        outcome = measured(Subject(url, given.model, images), asked, server)
    print(table(outcome, asked))
    missed = failures(outcome, asked)
    for line in missed:
        print(f"MISSED: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
