"""`python -m tests.load.tracing_cost`: what tracing costs, on and off, where it shows most.

The same load as `tests.load.noop`: a backend that computes nothing, 2 KB JPEGs, one HTTP process, 32 connections. Two
servers take turns, one without and one with an endpoint for traces, whose collector runs here as well. Printed is the
throughput with traces over that without, round by round, and the CPU time of the HTTP process per request.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from tests.load.noop import MODEL, loaded, small_jpegs
from tests.support.server import Server, running_server
from tests.support.trace_collector import running_collector
from tests.support.versions import publish_fake


def cpu_s(server: Server) -> float:
    """Seconds that the HTTP processes have computed."""
    times = [process.cpu_times() for process in server.api_processes()]
    return sum(time.user + time.system for time in times)


def round_of(server: Server, bodies: list[bytes], connections: int, seconds: float) -> tuple[float, float]:
    """Requests per second, and milliseconds of CPU in the HTTP process per request, warm-up included."""
    cpu_before, before = cpu_s(server), server.outcomes("ok")
    report = loaded(server, bodies, connections, seconds)
    answered = server.outcomes("ok") - before
    return report.throughput_rps, (cpu_s(server) - cpu_before) / answered * 1000


def run(rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Rounds of both servers in turn."""
    bodies = small_jpegs()
    with tempfile.TemporaryDirectory() as work, ExitStack() as held:
        repository = Path(work) / "repository"
        publish_fake(repository, MODEL, 1)
        collector = held.enter_context(running_collector())
        servers = {}
        for name, environment in (("off", {}), ("on", collector.environment)):
            folder = Path(work) / name
            folder.mkdir()
            servers[name] = held.enter_context(running_server(repository, folder, environment=environment))
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for number in range(rounds):
            for name in sorted(servers, reverse=bool(number % 2)):
                figures[name].append(round_of(servers[name], bodies, connections, seconds))
        recorded = servers["on"].metric("saccade_traces_total", outcome="recorded")
        left_out = servers["on"].metric("saccade_traces_total", outcome="left_out")
    pairs = list(zip(figures["on"], figures["off"], strict=True))
    return {
        "requests_per_s": {name: round(median(rate for rate, _ in found)) for name, found in figures.items()},
        "cpu_ms_per_request": {name: round(median(cpu for _, cpu in found), 4) for name, found in figures.items()},
        "throughput_on_over_off": [round(on[0] / off[0], 3) for on, off in pairs],
        "cpu_on_over_off": [round(on[1] / off[1], 3) for on, off in pairs],
        "median_throughput_ratio": round(median(on[0] / off[0] for on, off in pairs), 3),
        "median_cpu_ratio": round(median(on[1] / off[1] for on, off in pairs), 3),
        "requests_traced": recorded,
        "requests_left_out": left_out,
    }


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    print(f"about {given.rounds * 2 * (given.seconds + 2) + 10:.0f} s", flush=True)
    print(orjson.dumps(run(given.rounds, given.seconds, given.connections), option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
