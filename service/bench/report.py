"""The document of a run, as `--json` writes it. Promises: plain values, durations in ms or s.

Latency counts from the moment a request was meant to be sent; `service` from when it was. Both are of good answers
(status 2xx): what failed is counted by kind, and refusals have a latency of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from saccade.service.bench.statistics import Interval, Latency

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """What was asked for."""

    url: str
    models: dict[str, float]  # name to share of requests
    arrivals: str
    seed: int
    warm_up_s: float
    window_s: float  # of measuring, as it happened
    ending: str
    bodies: int  # different ones
    created: str  # UTC


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    label: str  # status and problem title, or what was wrong with the connection
    end: str
    status: int
    count: int


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """Good answers by who gave them."""

    model: str
    version: str
    variant: str
    count: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """One model of a mix."""

    name: str
    requests: int
    offered_rps: float
    throughput_rps: float
    goodput_rps: float
    error_rate: float
    latency: Latency | None


@dataclass(frozen=True, slots=True)
class StageFigures:
    """`share` is of the mean service latency that the client saw."""

    name: str
    mean_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class ClientFigures:
    processes: int
    cpu_cores: float  # used by all client processes
    lag_p99_ms: float  # how late the client itself was
    waited: int  # requests that had to wait because as many as allowed were in flight
    is_saturated: bool
    note: str


@dataclass(frozen=True, slots=True)
class TrialFigures:
    rate_rps: float
    requests: int
    late_ratio: float
    p99_ms: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class SloFigures:
    """`rate_rps` is the highest that met the objective, `missed_rps` the lowest that did not."""

    rate_rps: float | None
    missed_rps: float | None
    objective_ms: float
    end: str
    trials: tuple[TrialFigures, ...]


@dataclass(frozen=True, slots=True)
class Report:
    load: LoadFacts
    requests: int
    ok: int
    failed: int
    offered_rps: float
    throughput_rps: float
    objective_ms: float
    goodput_rps: float
    goodput_ratio: float  # of requests
    error_rate: float  # everything but good answers, refusals included
    refused_rate: float  # 429, 503 and 504
    latency: Latency | None
    service: Latency | None
    refusals: Latency | None  # from the actual sending
    p50_interval: Interval | None
    p99_interval: Interval | None
    outcomes: tuple[OutcomeCount, ...]
    versions: tuple[VersionFigures, ...]
    models: tuple[SpanFigures, ...]
    stages: tuple[StageFigures, ...]
    sent_bytes: int
    received_bytes: int
    client: ClientFigures
    curve: tuple[tuple[float, float], ...]  # per cent, ms
    slo: SloFigures | None = None
    schema: int = SCHEMA


def figures_of(report: Report) -> dict[str, float]:
    """Every figure that a limit or a comparison may name. NaN: nothing was there to measure."""
    figures = {
        "requests": float(report.requests),
        "offered_rps": report.offered_rps,
        "throughput_rps": report.throughput_rps,
        "goodput_rps": report.goodput_rps,
        "goodput_ratio": report.goodput_ratio,
        "error_rate": report.error_rate,
        "refused_rate": report.refused_rate,
        "client_lag_p99_ms": report.client.lag_p99_ms,
    }
    for prefix, latency in (("", report.latency), ("service_", report.service), ("refused_", report.refusals)):
        for name in ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms"):
            # Without a refusal none was late; without an answer nothing is known.
            nothing = 0.0 if prefix == "refused_" and report.requests else math.nan
            figures[prefix + name] = nothing if latency is None else float(getattr(latency, name))
    figures["slo_rps"] = report.slo.rate_rps or 0.0 if report.slo is not None else math.nan
    return figures


def encoded(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
