"""`python -m tests.load.ladder --repository DIR --model NAME`: what a ladder is worth under more than its top carries.

Rounds of two servers in turn: one that serves the top variant alone, one with a ladder below it. The first one's
capacity (a closed loop) times `--times` is sent to both, with a deadline that every request names. Medians.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from saccade.service.bench.coordinator import default_processes
from saccade.service.bench.images import ImageFile
from saccade.service.bench.report import Report
from saccade.service.settings import core_count
from tests.load.bench import photographs
from tests.load.overload import Asked, Subject, capacity_rps, overloaded
from tests.support.server import Server, running_server


def serving(repository: Path, workspace: Path, top: str, **settings: str) -> AbstractContextManager[Server]:
    workspace.mkdir()
    cores = {"device_threads": 0, "api_processes": 0}
    return running_server(repository, workspace, backend="onnxruntime", variant=top, **cores, **settings)


def rounds_of(given: argparse.Namespace, workspace: Path, asked: Asked) -> tuple[list[float], list[list[Report]]]:
    """The top variant's capacities, and the reports without and with the ladder."""
    images = [ImageFile(f"{index:02d}.jpg", "image/jpeg", body) for index, body in enumerate(photographs())]
    capacities: list[float] = []
    reports: list[list[Report]] = [[], []]
    for number in range(given.rounds):
        with serving(given.repository, workspace / f"alone-{number}", given.top) as server:
            subject = Subject(server.base_url, given.model, images)
            capacities.append(capacity_rps(subject, asked))
            rate_rps = asked.times_capacity * capacities[-1]
            reports[0].append(overloaded(subject, asked, rate_rps))
        ladder = {"ladder": "auto", "objective_ms": f"{asked.objective_ms:g}"}
        with serving(given.repository, workspace / f"ladder-{number}", given.top, **ladder) as server:
            reports[1].append(overloaded(Subject(server.base_url, given.model, images), asked, rate_rps))
    return capacities, reports


def row(name: str, capacity: float, reports: Sequence[Report]) -> str:
    goodput = median(report.goodput_rps for report in reports)
    p99_ms = median(report.latency.p99_ms for report in reports if report.latency is not None)
    refused = median(report.refused_rate for report in reports)
    counts: dict[str, int] = {}
    for report in reports:
        for version in report.versions:
            counts[version.variant] = counts.get(version.variant, 0) + version.count
    answered = ", ".join(f"{variant} {count / sum(counts.values()):.0%}" for variant, count in counts.items())
    return f"| {name} | {goodput:.0f} | {goodput / capacity:.2f} | {p99_ms:.0f} | {refused:.0%} | {answered} |"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--top", default="fp32", help="variant that answers while there is time")
    parser.add_argument("--objective-ms", type=float, default=200.0)
    parser.add_argument("--times", type=float, default=2.0, help="of the top variant's capacity")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    asked = Asked(given.objective_ms, given.times, given.seconds, processes=default_processes(core_count()))
    with tempfile.TemporaryDirectory() as workspace:
        capacities, (alone, laddered) = rounds_of(given, Path(workspace), asked)
    capacity = median(capacities)
    print(f"{given.top} alone carries {capacity:.0f}/s; {given.times:g} times that was sent")
    print("| server | goodput/s | of that capacity | p99 ms of answers | refused | answered by |")
    print("|---|---|---|---|---|---|")
    print(row(f"{given.top} alone", capacity, alone))
    print(row("with a ladder", capacity, laddered))


if __name__ == "__main__":
    main()
