"""One run from plan to report, and the search for the highest rate within the objective. Equal options send equal
requests.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from saccade.service.bench.coordinator import (
    ClientLimits,
    Closed,
    Ending,
    Live,
    LoadPlan,
    LoadResult,
    address_of,
    run_load,
)
from saccade.service.bench.energy import meter_of
from saccade.service.bench.report import LoadFacts, Report, SloFigures, TrialFigures
from saccade.service.bench.schedule import Arrivals, Constant, Poisson, Recorded, SendSchedule, schedule_of
from saccade.service.bench.slo_search import MIN_REQUESTS, SearchLimits, SloSearch, Trial
from saccade.service.bench.summary import ClientCost, Scope, report_of
from saccade.service.bench.traces import Arrival
from saccade.service.bench.workload import DEFAULT_PATH, Endpoint, RequestShape, Workload, order_of, order_of_trace
from saccade.service.errors import BenchFailed

_CLOSED_ROUNDS = 10_000  # a closed loop repeats its order after so many requests
_CHECK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """What stays the same from run to run."""

    url: str
    endpoint: Endpoint
    workload: Workload
    shape: RequestShape
    limits: ClientLimits
    seed: int
    warm_up_s: float
    objective_ms: float


@dataclass(frozen=True, slots=True)
class Open:
    """An open loop: requests are sent when they are due. `trace` names what a recording asked for."""

    arrivals: Arrivals
    requests: int | None = None
    trace: tuple[Arrival, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchRun:
    """A report and the rows behind it."""

    report: Report
    measured: LoadResult


OnProgress = Callable[[Live, float], None]  # gets the current state and the planned seconds of measuring


def check_server(session: Session) -> None:
    """Raises BenchFailed unless every model answers by name and has a version that is ready."""
    if session.shape.path != DEFAULT_PATH:
        return  # another server's API, which the first requests will check
    with httpx.Client(headers=dict(session.shape.headers), timeout=_CHECK_TIMEOUT_S) as client:
        for model in session.workload.models:
            url = f"{session.url.rstrip('/')}/v1/models/{model}"
            try:
                response = client.get(url)
            except httpx.HTTPError as error:
                raise BenchFailed(f"cannot reach {session.url}: {error}; is `saccade serve` running?") from error
            _ensure_ready(session.url, model, response)


def _ensure_ready(url: str, model: str, response: httpx.Response) -> None:
    try:
        document: dict[str, Any] = response.json()
        states = [version["state"] for version in document.get("versions", ())]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BenchFailed(
            f"{url} answered {response.status_code}, but not as saccade does; name another server's path with --path"
        ) from error
    if not response.is_success:
        raise BenchFailed(f"{url} answered {response.status_code}: {document.get('detail', 'no detail')}")
    if "ready" not in states:
        raise BenchFailed(
            f"no version of {model} is ready (states: {', '.join(states) or 'none'}); wait, or see its log"
        )


def measure(session: Session, load: Open | Closed, on_progress: OnProgress) -> BenchRun:
    """Runs a load to its end. Raises BenchFailed, and BadParameter for a plan that is empty or too large."""
    plan = _plan(session, load)
    meter = meter_of(address_of(session.endpoint))

    def heard(live: Live) -> None:
        meter.read(live.elapsed_s)
        on_progress(live, plan.load.duration_s)

    measured = run_load(plan, heard)
    facts = LoadFacts(
        url=session.url,
        models=_mix(session.workload),
        arrivals=description_of(load),
        seed=session.seed,
        warm_up_s=session.warm_up_s,
        window_s=_window_s(load, measured),
        ending=str(measured.ending),
        bodies=len(session.workload.items),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    cost = ClientCost(session.limits.processes, measured.client_cpu_s, measured.client_wall_s)
    scope = Scope(session.workload.items, session.objective_ms)
    report = report_of(facts, measured.records, scope, cost)
    return BenchRun(replace(report, energy=meter.figures(report.throughput_rps)), measured)


def search_slo(
    session: Session,
    limits: SearchLimits,
    arrivals: Callable[[float, float], Constant | Poisson],
    trial_s: float,
    on_progress: OnProgress,
    on_trial: Callable[[TrialFigures], None],
) -> BenchRun:
    """Tries rates until the highest within the objective is known. The report is that of the run at this rate.

    `arrivals` makes arrivals from a rate and a duration.
    """
    search = SloSearch(limits)
    runs: dict[float, BenchRun] = {}
    trials: list[TrialFigures] = []
    while (rate := search.next_rate()) is not None:
        # Each trial has a seed of its own: repeating the same arrivals would tell nothing new.
        tried = replace(session, seed=session.seed + len(trials))
        run = measure(tried, Open(arrivals(rate, max(trial_s, MIN_REQUESTS / rate))), on_progress)
        if run.measured.ending is Ending.INTERRUPTED:
            runs.setdefault(rate, run)
            search.interrupt()
            break
        runs[rate] = run
        report = run.report
        late = report.requests - round(report.goodput_ratio * report.requests)
        p99_ms = report.latency.p99_ms if report.latency else None
        trial = Trial(rate, report.requests, late, p99_ms, report.client.is_saturated)
        verdict = search.record(trial)
        trials.append(TrialFigures(rate, trial.requests, trial.late_ratio, p99_ms, str(verdict)))
        on_trial(trials[-1])
    best = search.met_rps if search.met_rps in runs else min(runs)
    slo = SloFigures(search.met_rps, search.missed_rps, session.objective_ms, str(search.end), tuple(trials))
    return BenchRun(replace(runs[best].report, slo=slo), runs[best].measured)


def trace_rows(run: BenchRun, workload: Workload) -> Iterator[dict[str, Any]]:
    """The rows that `--record` writes: every measured request, with how it ended."""
    records = run.measured.records
    for row in np.flatnonzero(records.due_s >= 0.0).tolist():
        item = workload.items[records.item[row]]
        yield {
            "at_s": float(records.due_s[row]),
            "model": item.model,
            "image": item.image,
            "latency_ms": float(records.done_s[row] - records.due_s[row]) * 1000.0,
            "outcome": records.outcomes[records.outcome[row]].label,
        }


def description_of(load: Open | Closed) -> str:
    """The load in words."""
    if isinstance(load, Closed):
        return f"{load.in_flight} in flight (closed loop)"
    match load.arrivals:
        case Constant(rate):
            return f"{rate:g}/s, evenly"
        case Poisson(rate):
            return f"{rate:g}/s, Poisson"
        case Recorded(arrivals_s, speed):
            return f"a recording of {len(arrivals_s)} requests" + ("" if speed == 1.0 else f", {speed:g} times as fast")


def _plan(session: Session, load: Open | Closed) -> LoadPlan:
    order: NDArray[np.int64]
    planned: SendSchedule | Closed
    if isinstance(load, Closed):
        planned = load
        order = order_of(session.workload, max(_CLOSED_ROUNDS, len(session.workload.items)), session.seed)
    else:
        planned = schedule_of(load.arrivals, session.seed, session.warm_up_s, load.requests)
        count = len(planned.due_s)
        asked = load.trace[: count - planned.warm_up_count]
        order = order_of_trace(session.workload, asked, count, session.seed)
    return LoadPlan(session.endpoint, session.workload, planned, order, session.limits)


def _window_s(load: Open | Closed, measured: LoadResult) -> float:
    """A load with a duration is measured over that duration; one with a number of requests, until its last answer."""
    is_counted = load.requests is not None or (isinstance(load, Open) and isinstance(load.arrivals, Recorded))
    if measured.ending is not Ending.COMPLETE or not is_counted:
        return measured.stopped_at_s
    return float(measured.records.done_s.max()) if len(measured.records) else 0.0


def _mix(workload: Workload) -> dict[str, float]:
    total = sum(workload.weights.values())
    return {model: weight / total for model, weight in workload.weights.items()}
