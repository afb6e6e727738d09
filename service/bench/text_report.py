"""The report as plain text for people, one fact per line; a terminal and a log get the same."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.service.bench.report import EnergyFigures, PlanFigures, Report, SloFigures, SpanFigures
from saccade.service.bench.statistics import Interval, Latency

_MIB = 2**20


def text_of(report: Report) -> str:
    load, client = report.load, report.client
    mix = ", ".join(f"{model} {share:.0%}" if len(load.models) > 1 else model for model, share in load.models.items())
    lines = [
        f"{mix} at {load.url}",
        f"load         {load.arrivals}, {load.window_s:.1f} s measured after {load.warm_up_s:g} s of warm-up, "
        f"{load.bodies} bodies, seed {load.seed}",
        f"requests     {report.requests} = {report.ok} answered well + {report.failed} failed "
        f"({report.error_rate:.3%}); {report.offered_rps:.1f}/s offered",
        f"throughput   {report.throughput_rps:.1f}/s",
        f"goodput      {report.goodput_rps:.1f}/s within {report.objective_ms:g} ms "
        f"({report.goodput_ratio:.2%} of requests)",
        *_latency_lines(report),
    ]
    if report.outcomes:
        lines.append("outcomes     " + ", ".join(f"{item.label}: {item.count}" for item in report.outcomes))
    if report.refusals:
        refused = report.refusals
        lines.append(f"refusals     {refused.count}, answered in p50 {refused.p50_ms:.1f}, p99 {refused.p99_ms:.1f} ms")
    lines += [
        f"answered by  {item.model}/{item.version} {item.variant}: {item.count}, "
        f"p50 {item.p50_ms:.2f}, p99 {item.p99_ms:.2f} ms"
        for item in report.versions
        if item.version
    ]
    if report.stages:
        stages = ", ".join(f"{item.name} {item.mean_ms:.2f} ms {item.share:.0%}" for item in report.stages)
        lines.append(f"stages       {stages}")
    lines += [
        f"bytes        {report.sent_bytes / _MIB:.1f} MiB sent, {report.received_bytes / _MIB:.1f} MiB of answers",
        f"client       {client.processes} processes, {client.cpu_cores:.2f} cores, lag p99 {client.lag_p99_ms:.2f} ms",
        *(_energy_lines(report.energy) if report.energy else []),
        *([f"CAUTION      {client.note}"] if client.note else []),
        *([f"ended early  {load.ending}"] if load.ending != "complete" else []),
        *(_model_lines(report.models) if len(report.models) > 1 else []),
        *(_slo_lines(report.slo) if report.slo else []),
        *([_plan_line(report.plan, report.objective_ms)] if report.plan else []),
    ]
    return "\n".join(lines)


def _latency_lines(report: Report) -> list[str]:
    lines = []
    for name, latency in (("latency", report.latency), ("service", report.service)):
        if latency is not None:
            lines.append(f"{name:<12} {percentiles_text(latency)} ms")
    intervals = [("p50", report.p50_interval), ("p99", report.p99_interval)]
    told = [f"{name} {_interval_text(interval)}" for name, interval in intervals if interval is not None]
    if told:
        lines.append(f"95 % within  {', '.join(told)} ms")
    return lines


def percentiles_text(latency: Latency) -> str:
    return (
        f"p50 {latency.p50_ms:.2f}, p90 {latency.p90_ms:.2f}, p95 {latency.p95_ms:.2f}, p99 {latency.p99_ms:.2f}, "
        f"p99.9 {latency.p99_9_ms:.2f}, max {latency.max_ms:.2f}"
    )


def _interval_text(interval: Interval) -> str:
    return f"{interval.low_ms:.2f} to {interval.high_ms:.2f}"


def _energy_lines(energy: EnergyFigures) -> list[str]:
    """Whole devices, because no counter knows programs."""
    lines = []
    for item in energy.devices:
        each = "" if item.joules_per_answer is None else f", {item.joules_per_answer:.4g} J per good answer"
        lines.append(f"energy       {item.device}: {item.watts:.1f} W{each}; all its work, client included")
    return [*lines, *(f"energy       not told: {reason}" for reason in energy.not_told)]


def _model_lines(spans: Sequence[SpanFigures]) -> list[str]:
    return [
        f"model        {span.name}: {span.offered_rps:.1f}/s offered, {span.throughput_rps:.1f}/s answered, "
        f"{span.goodput_rps:.1f}/s good, {span.error_rate:.2%} failed"
        + (f", p50 {span.latency.p50_ms:.2f}, p99 {span.latency.p99_ms:.2f} ms" if span.latency else "")
        for span in spans
    ]


def _plan_line(plan: PlanFigures, objective_ms: float) -> str:
    wanted = f"plan         {plan.rate_rps:g}/s within {objective_ms:g} ms: "
    if plan.replica_rps is None:
        return wanted + "no number of replicas, since one keeps the objective at no rate"
    prices = (
        ""
        if plan.price_per_hour is None
        else f"; {plan.price_per_hour:.2f} an hour, {plan.price_per_million:.2f} a million requests"
    )
    return (
        f"{wanted}{plan.replicas} replicas with {plan.devices} devices ({plan.replicas - plan.spare} at "
        f"{plan.used_share:.0%} of {plan.replica_rps:.1f}/s, and {plan.spare} spare){prices}"
    )


def _slo_lines(slo: SloFigures) -> list[str]:
    found = "no rate" if slo.rate_rps is None else f"{slo.rate_rps:.1f}/s"
    missed = "" if slo.missed_rps is None else f", {slo.missed_rps:.1f}/s does not"
    lines = [f"objective    {found} keeps p99 within {slo.objective_ms:g} ms{missed} ({slo.end})"]
    for trial in sorted(slo.trials, key=lambda item: item.rate_rps):
        p99 = "-" if trial.p99_ms is None else f"{trial.p99_ms:.2f}"
        lines.append(
            f"  tried      {trial.rate_rps:8.1f}/s: p99 {p99} ms, {trial.late_ratio:.2%} of {trial.requests} late, "
            f"{trial.verdict}"
        )
    return lines
