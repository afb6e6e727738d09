"""Makes the report of a run's rows: pure. Every measured request is counted once, and warm-up never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.service.bench.records import STAGES, End, Records
from saccade.service.bench.report import (
    ClientFigures,
    LoadFacts,
    OutcomeCount,
    Report,
    SpanFigures,
    StageFigures,
    VersionFigures,
)
from saccade.service.bench.statistics import curve_of, interval_of, latency_of, percentiles
from saccade.service.bench.workload import Item

Mask = NDArray[np.bool_]

_BUSY_SHARE = 0.9  # a client process that uses more of its core sends late
_LAG_MS = 1.0
_LAG_RATIO = 0.1  # the client's p99 lag, as a share of the p99 latency, from which it distorts the result
_WAITED_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class ClientCost:
    processes: int
    cpu_s: float
    wall_s: float  # summed over processes


@dataclass(frozen=True, slots=True)
class Scope:
    """The workload and objective by which the rows are read."""

    items: Sequence[Item]
    objective_ms: float


def report_of(load: LoadFacts, records: Records, scope: Scope, cost: ClientCost) -> Report:
    """The report. `load.window_s` is the measured time. Rows due before zero are warm-up and only count as arrivals."""
    window_s = max(load.window_s, 1e-9)
    measured = records.rows(records.due_s >= 0.0)
    ok, latency_ms = measured.is_ok, measured.latency_ms
    good_count = int(np.sum(ok & (latency_ms <= scope.objective_ms)))
    requests, ok_count = len(measured), int(np.sum(ok))
    refused = measured.is_refused
    return Report(
        load=load,
        requests=requests,
        ok=ok_count,
        failed=requests - ok_count,
        offered_rps=requests / window_s,
        throughput_rps=_arrived(records, window_s) / window_s,
        objective_ms=scope.objective_ms,
        goodput_rps=_arrived(records, window_s, scope.objective_ms) / window_s,
        goodput_ratio=good_count / requests if requests else 0.0,
        error_rate=1.0 - ok_count / requests if requests else 1.0,
        refused_rate=float(np.mean(refused)) if requests else 0.0,
        latency=latency_of(latency_ms[ok]),
        service=latency_of(measured.service_ms[ok]),
        refusals=latency_of(measured.service_ms[refused]),
        p50_interval=interval_of(latency_ms[ok], 50.0),
        p99_interval=interval_of(latency_ms[ok], 99.0),
        outcomes=_outcomes(measured),
        versions=_versions(measured, scope.items),
        models=_models(records, scope, window_s),
        stages=_stages(measured),
        sent_bytes=int(_sizes(scope.items)[measured.item].sum()) if requests else 0,
        received_bytes=int(measured.answer_bytes.sum()),
        client=_client(measured, cost),
        curve=curve_of(latency_ms[ok]),
    )


def _arrived(records: Records, window_s: float, objective_ms: float = np.inf) -> int:
    """Number of good answers that came within the window, whenever their requests were due."""
    came = (records.done_s >= 0.0) & (records.done_s <= window_s)
    return int(np.sum(came & records.is_ok & (records.latency_ms <= objective_ms)))


def _sizes(items: Sequence[Item]) -> NDArray[np.int64]:
    return np.array([item.size_bytes for item in items], np.int64)


def _outcomes(measured: Records) -> tuple[OutcomeCount, ...]:
    """Failures by kind and good answers, the most frequent first."""
    counts: dict[tuple[str, str, int], int] = {}
    for number, count in enumerate(np.bincount(measured.outcome, minlength=len(measured.outcomes))):
        outcome = measured.outcomes[number]
        kind = (outcome.label, str(outcome.end), outcome.status)
        counts[kind] = counts.get(kind, 0) + int(count)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(OutcomeCount(*kind, count) for kind, count in ordered if count)


def _versions(measured: Records, items: Sequence[Item]) -> tuple[VersionFigures, ...]:
    found = []
    latency_ms = measured.latency_ms
    for model, of_model in _by_model(measured, items):
        for number, outcome in enumerate(measured.outcomes):
            of_version = of_model & (measured.outcome == number)
            if outcome.is_ok and of_version.any():
                p50_ms, p99_ms = percentiles(latency_ms[of_version], (50.0, 99.0))
                count = int(of_version.sum())
                found.append(VersionFigures(model, outcome.version, outcome.variant, count, p50_ms, p99_ms))
    return tuple(found)


def _by_model(records: Records, items: Sequence[Item]) -> list[tuple[str, Mask]]:
    """Each model's rows, in the order of the mix."""
    names = list(dict.fromkeys(item.model for item in items))
    number_of_item = np.array([names.index(item.model) for item in items], np.int64)
    model = number_of_item[records.item]
    return [(name, model == number) for number, name in enumerate(names)]


def _models(records: Records, scope: Scope, window_s: float) -> tuple[SpanFigures, ...]:
    return tuple(
        _span(model, records.rows(of_model), 0.0, window_s, scope.objective_ms)
        for model, of_model in _by_model(records, scope.items)
    )


def _span(name: str, records: Records, start_s: float, end_s: float, objective_ms: float) -> SpanFigures:
    """Figures of some rows. Requests count by when they were due, answers by when they came."""
    due = records.rows((records.due_s >= start_s) & (records.due_s < end_s))
    came = records.rows((records.done_s >= start_s) & (records.done_s < end_s) & records.is_ok)
    length_s = end_s - start_s
    return SpanFigures(
        name=name,
        requests=len(due),
        offered_rps=len(due) / length_s,
        throughput_rps=len(came) / length_s,
        goodput_rps=int(np.sum(came.latency_ms <= objective_ms)) / length_s,
        error_rate=1.0 - float(np.mean(due.is_ok)) if len(due) else 0.0,
        latency=latency_of(due.latency_ms[due.is_ok]),
    )


def _stages(measured: Records) -> tuple[StageFigures, ...]:
    """Mean times of the server's stages, of its other work, and of everything outside, from answers that tell them."""
    told = measured.is_ok & ~np.isnan(measured.stages_ms[:, -1])
    if not told.any():
        return ()
    stages_ms = measured.stages_ms[told].astype(np.float64)
    service_ms = float(np.mean(measured.service_ms[told]))
    means_ms = dict(zip(STAGES, stages_ms[:, :-1].mean(axis=0).tolist(), strict=True))
    total_ms = float(stages_ms[:, -1].mean())
    means_ms["rest of the server"] = max(0.0, total_ms - sum(means_ms.values()))
    means_ms["network and client"] = max(0.0, service_ms - total_ms)
    return tuple(StageFigures(name, mean_ms, mean_ms / service_ms) for name, mean_ms in means_ms.items())


def _client(measured: Records, cost: ClientCost) -> ClientFigures:
    """The client's own cost, with a warning where the client was the limit."""
    busy = cost.cpu_s / cost.wall_s if cost.wall_s else 0.0  # cores per process
    sent = measured.rows(~measured.ended(End.UNSENT))
    lag_ms = percentiles(sent.lag_ms, (99.0,))[0] if len(sent) else 0.0
    p99_ms = percentiles(measured.latency_ms, (99.0,))[0] if len(measured) else 0.0
    noticeable_ms = max(_LAG_MS, _LAG_RATIO * p99_ms)
    # Opening a connection takes less time than this, unless the server is slow to accept.
    waited = int(np.sum((measured.sent_s - measured.woken_s) * 1000.0 > noticeable_ms))
    is_saturated = busy > _BUSY_SHARE or lag_ms > noticeable_ms
    notes = []
    if is_saturated:
        remedy = "use more --processes" if busy > _BUSY_SHARE else "its cores have other work: give it its own"
        notes.append(
            f"client saturated: latency from intended send time includes client lag, p99 {lag_ms:.1f} ms, "
            f"at {busy:.0%} of a core per process; {remedy}, or another machine"
        )
    if waited > _WAITED_RATIO * len(measured):
        notes.append(f"{waited} requests waited for a connection: as many as --max-in-flight allows were under way")
    return ClientFigures(cost.processes, busy * cost.processes, lag_ms, waited, is_saturated, "; ".join(notes))
