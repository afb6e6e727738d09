"""The document of a run, as `--json` writes it: plain values, durations in ms or s.

Latency counts from the moment a request was meant to be sent, `service` from when it was sent. Both are of good
answers (status 2xx). Failures are counted by kind, and refusals have a latency of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from saccade.service.bench.statistics import Interval, Latency

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """The load that was asked for, and the window in which it was measured."""

    url: str
    models: dict[str, float]  # share of requests by model name
    arrivals: str
    seed: int
    warm_up_s: float
    window_s: float  # how long measuring really took
    ending: str
    bodies: int  # number of different bodies
    created: str  # time in UTC


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    label: str  # status and error title, or what was wrong with the connection
    end: str
    status: int
    count: int


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """Good answers of one version and variant."""

    model: str
    version: str
    variant: str
    count: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """Figures of one model of a mix."""

    name: str
    requests: int
    offered_rps: float
    throughput_rps: float
    goodput_rps: float
    error_rate: float
    latency: Latency | None


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Mean time of one stage; `share` is its part of the mean service latency that the client saw."""

    name: str
    mean_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class ClientFigures:
    processes: int
    cpu_cores: float  # cores used by all client processes together
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
    """`rate_rps` is the highest rate that met the objective, `missed_rps` the lowest that did not."""

    rate_rps: float | None
    missed_rps: float | None
    objective_ms: float
    end: str
    trials: tuple[TrialFigures, ...]


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """Servers like the measured one for a rate; prices are in the unit that was given."""

    rate_rps: float
    replica_rps: float | None  # that one kept the objective at; None: at no rate, and there is no plan
    used_share: float  # of `replica_rps` that the plan counts on
    replicas: int  # spare ones included
    spare: int
    devices: int
    price_per_hour: float | None
    price_per_million: float | None  # requests


@dataclass(frozen=True, slots=True)
class DeviceEnergy:
    """What one device consumed while measuring lasted, all its work included."""

    device: str
    watts: float
    joules_per_answer: float | None  # by good answers; None: there were none


@dataclass(frozen=True, slots=True)
class EnergyFigures:
    devices: tuple[DeviceEnergy, ...]
    not_told: tuple[str, ...]  # why a device, or a kind of device, tells nothing


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
    goodput_ratio: float  # share of requests with a good answer within the objective
    error_rate: float  # share of requests without a good answer, refusals included
    refused_rate: float  # share of requests answered with 429, 503 or 504
    latency: Latency | None
    service: Latency | None
    refusals: Latency | None  # counted from when requests were sent
    p50_interval: Interval | None
    p99_interval: Interval | None
    outcomes: tuple[OutcomeCount, ...]
    versions: tuple[VersionFigures, ...]
    models: tuple[SpanFigures, ...]
    stages: tuple[StageFigures, ...]
    sent_bytes: int
    received_bytes: int
    client: ClientFigures
    curve: tuple[tuple[float, float], ...]  # (per cent, ms)
    slo: SloFigures | None = None
    plan: PlanFigures | None = None
    energy: EnergyFigures | None = None
    schema: int = SCHEMA


def figures_of(report: Report) -> dict[str, float]:
    """Every figure that a limit or a comparison may name; NaN where there was nothing to measure."""
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
            # Without refusals none was late: 0. Without any answer nothing is known: NaN.
            nothing = 0.0 if prefix == "refused_" and report.requests else math.nan
            figures[prefix + name] = nothing if latency is None else float(getattr(latency, name))
    figures["slo_rps"] = report.slo.rate_rps or 0.0 if report.slo is not None else math.nan
    return figures


def encoded(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
