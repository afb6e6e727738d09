"""`python -m tests.load.tracing_cost`: what tracing costs, on and off, where it shows most.

The same load as `tests.load.noop`: a backend that computes nothing, 2 KB JPEGs, one HTTP process, 32 connections. Two
servers take turns, one without and one with an endpoint for traces, whose collector runs here as well. Printed is the
throughput with traces over that without, round by round, and the CPU time of the HTTP process per request.
`--spans` starts no server: it prints the CPU time of making and of encoding one span, and what that is at the bound.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanContext, TraceFlags

from saccade.service.api.predictor import ImageAnswer, Ran
from saccade.service.api.tracing.recorder import SPANS_PER_S
from saccade.service.api.tracing.request_trace import RequestTrace
from saccade.service.api.tracing.spans import SpanMaker
from saccade.service.core import StageTimes, VersionKey
from saccade.service.ipc.messages import DONE_OK, Done
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
    report = loaded(server.base_url, bodies, connections, seconds)
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


class _Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def _cpu_us(work: Callable[[], object], count: int) -> float:
    before_s = time.process_time()
    work()
    return (time.process_time() - before_s) / count * 1e6


def span_costs(rounds: int) -> dict[str, float]:
    """Medians of rounds of 70 requests of one image."""
    making, encoding = [], []
    for _ in range(rounds):
        kept = _Kept()
        traces = [_traced(number) for number in range(70)]
        count = 70 * SpanMaker.count_of(traces[0])
        maker = SpanMaker(Resource.create(), kept)
        making.append(_cpu_us(lambda maker=maker, traces=traces: maker.hand_on(traces), count))
        encoding.append(_cpu_us(lambda kept=kept: encode_spans(kept.spans).SerializePartialToString(), count))
    made_us, encoded_us = median(making), median(encoding)
    return {
        "make_us_per_span": round(made_us, 1),
        "encode_us_per_span": round(encoded_us, 1),
        "share_of_a_core_at_the_bound": round((made_us + encoded_us) * SPANS_PER_S / 1e6, 4),
    }


def _traced(number: int) -> RequestTrace:
    trace = RequestTrace(SpanContext(number + 1, number + 1, False, TraceFlags(1)), None, 1.0)
    trace.method, trace.route, trace.path, trace.status = "POST", "/v1/models/{model}/predict", "/there", 200
    done = Done(number, DONE_OK, 0.001, 0.002, 8, batch=number // 8 + 1)
    ran = Ran(1.0, 1.1, 1.2, 1.3, 1, done)
    answer = ImageAnswer(None, None, StageTimes(0.1, 0.001, 0.002, 0.1), "fp32", ran=ran)
    trace.answered(VersionKey(MODEL, 1), [answer], 1.3, 1.4)
    return trace


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--spans", action="store_true", help="the cost of a span alone")
    given = parser.parse_args()
    if given.spans:
        print(orjson.dumps(span_costs(100), option=orjson.OPT_INDENT_2).decode())
        return
    print(f"about {given.rounds * 2 * (given.seconds + 2) + 10:.0f} s", flush=True)
    print(orjson.dumps(run(given.rounds, given.seconds, given.connections), option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
