"""What a shadow costs the stable version: `python -m tests.load.shadow_cost`.

A model of known cost in a server of its own, with and without a shadow of 20 %, in turns. An open loop at half of the
capacity, where the device has room: throughput and p99 must stay. And a closed loop that leaves none: the shadow must
yield. Exit code 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from saccade.service.bench.coordinator import ClientLimits, Closed
from saccade.service.bench.images import ImageFile
from saccade.service.bench.report import Report
from saccade.service.bench.schedule import Poisson
from saccade.service.bench.session import Open, Session, measure
from saccade.service.bench.workload import ModelShare, RequestShape, endpoint_of, workload_of
from tests.support.images import red_png
from tests.support.server import Server, call_saccade, running_server
from tests.support.versions import publish_fake

MODEL = "costly"
COST = b"an image takes 8 ms"
CAPACITY_RPS = 125.0
SAMPLE = 0.2
LEAST_THROUGHPUT = 0.97
MOST_P99 = 1.1
_CONNECTIONS = 16
_WARM_UP_S = 1.0
_TIMEOUT_S = 10.0


def session_of(server: Server, seed: int = 0) -> Session:
    endpoint, shape = endpoint_of(server.base_url), RequestShape()
    images = tuple(ImageFile(f"{red:02d}.png", "image/png", red_png(red)) for red in range(0, 250, 25))
    return Session(
        url=server.base_url,
        endpoint=endpoint,
        workload=workload_of([ModelShare(MODEL, 1.0, images)], endpoint, shape),
        shape=shape,
        limits=ClientLimits(1, 2000, _CONNECTIONS, _TIMEOUT_S),
        seed=seed,
        warm_up_s=_WARM_UP_S,
        objective_ms=1000.0,
    )


def set_shadow(server: Server, repository: Path, *, is_on: bool) -> None:
    how = ("2", "--sample", str(SAMPLE)) if is_on else ("--off",)
    options = ("--repository", str(repository), "--url", server.base_url, "--wait")
    ended = call_saccade("rollout", "shadow", MODEL, *how, *options)
    if ended.returncode:
        raise SystemExit(ended.stderr)


def with_room(server: Server, seconds: float, seed: int) -> Report:
    """The same arrivals with and without a shadow."""
    load = Open(Poisson(CAPACITY_RPS / 2, _WARM_UP_S + seconds))
    return measure(session_of(server, seed), load, lambda live, s: None).report


def without_room(server: Server, seconds: float) -> Report:
    return measure(session_of(server), Closed(_CONNECTIONS, seconds, _WARM_UP_S), lambda live, s: None).report


def p99_ms(report: Report) -> float:
    assert report.latency is not None
    return report.latency.p99_ms


def shadows(server: Server, outcome: str) -> float:
    return server.metric("saccade_shadows_total", outcome=outcome)


def run(rounds: int, seconds: float) -> bool:
    """Prints a line per figure; returns whether all limits are kept."""
    rates: list[float] = []
    tails: list[float] = []
    full: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        repository = Path(work) / "repository"
        for version in (1, 2):
            publish_fake(repository, MODEL, version, content=COST, allowed_batch_sizes=(1,))
        options = {"max_estimated_wait_ms": 0}
        with running_server(repository, Path(work), **options) as server:
            call_saccade("rollout", "promote", MODEL, "1", "--repository", str(repository), "--url", server.base_url)
            for number in range(rounds):
                pairs: dict[bool, tuple[Report, Report]] = {}
                for is_on in ((False, True), (True, False))[number % 2]:
                    if is_on:
                        set_shadow(server, repository, is_on=True)
                    compared = shadows(server, "compared")
                    roomy = with_room(server, seconds, number)
                    ran = shadows(server, "compared") - compared
                    compared = shadows(server, "compared")
                    busy = without_room(server, seconds)
                    if is_on:
                        print(f"round {number}: {ran:.0f} shadows ran with room, ", end="")
                        print(f"{shadows(server, 'compared') - compared:.0f} without", flush=True)
                        set_shadow(server, repository, is_on=False)
                    pairs[is_on] = (roomy, busy)
                rates.append(pairs[True][0].throughput_rps / pairs[False][0].throughput_rps)
                tails.append(p99_ms(pairs[True][0]) / p99_ms(pairs[False][0]))
                full.append(pairs[True][1].throughput_rps / pairs[False][1].throughput_rps)
    found = {"throughput with room": median(rates), "p99 with room": median(tails), "throughput without": median(full)}
    for name, value in found.items():
        print(f"{name:22} {value:.3f} x (median of {rounds} pairs)")
    least = min(found["throughput with room"], found["throughput without"])
    return least >= LEAST_THROUGHPUT and found["p99 with room"] <= MOST_P99


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    return 0 if run(arguments.rounds, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
