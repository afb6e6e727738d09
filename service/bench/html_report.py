"""The report as one page. Promises: self-contained, no script, nothing fetched; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from saccade.service.bench.charts import Axis, Part, Scale, Series, line_chart, shares_bar
from saccade.service.bench.report import Report, SloFigures, SpanFigures
from saccade.service.bench.statistics import Latency
from saccade.service.bench.text_report import change_text

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --line: #d8dee4; --page: #fff; --warn: #9a5b00;
  --c0: #2563eb; --c1: #d97706; --c2: #059669; --c3: #dc2626; --c4: #7c3aed; --c5: #64748b; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9198a1; --line: #30363d; --page: #0d1117;
  --warn: #e3a94a; --c0: #60a5fa; --c1: #fbbf24; --c2: #34d399; --c3: #f87171; --c4: #a78bfa; --c5: #94a3b8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto;
  max-width: 60rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.soft { color: var(--soft); } .warn { color: var(--warn); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg .y-tick { text-anchor: end; fill: var(--soft); }
svg .x-tick { text-anchor: middle; fill: var(--soft); } svg path { fill: none; stroke-width: 1.8; }
svg .level { stroke: var(--c3); stroke-dasharray: 5 4; } svg .level-name { text-anchor: end; fill: var(--c3); }
""" + "".join(
    f"svg .fill{number} {{ fill: var(--c{number}); }} svg .stroke{number} {{ stroke: var(--c{number}); }}\n"
    for number in range(6)
)


def html_of(report: Report) -> str:
    """A whole document."""
    load = report.load
    title = f"{', '.join(load.models)}: {load.arrivals}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(load.url)} · {escape(load.created)} · {load.window_s:.1f} s measured after '
        f"{load.warm_up_s:g} s of warm-up · {load.bodies} bodies, sent as {escape(load.body)} · seed {load.seed} · "
        f"{escape(load.ending)}</p>",
        *([f'<p class="warn">{escape(report.client.note)}</p>'] if report.client.note else []),
        _tiles(report),
        *(_slo(report.slo) if report.slo else []),
        "<h2>Latency by percentile</h2>",
        line_chart(
            Axis("of good answers", Scale.PERCENTILE),
            Axis("ms", Scale.LOG),
            [Series("latency from the intended send time", 0, report.curve)],
            _objective(report.objective_ms),
        ),
        _latencies(report),
        "<h2>Latency over time</h2>",
        _latency_over_time(report),
        "<h2>Rates over time</h2>",
        _rates_over_time(report),
        *_stages(report),
        "<h2>Outcomes</h2>",
        _table(
            ("outcome", "count", "share"),
            [(item.label, str(item.count), f"{item.count / report.requests:.3%}") for item in report.outcomes],
        ),
        *_versions(report),
        *_spans("Steps", report.steps),
        *(_spans("Models", report.models) if len(report.models) > 1 else []),
        *_changes(report),
        "<h2>Client</h2>",
        f"<p>{report.client.processes} processes used {report.client.cpu_cores:.2f} cores; p99 of their own lag "
        f"{report.client.lag_p99_ms:.2f} ms; {report.client.waited} requests waited for a connection. "
        f"{report.sent_bytes:,} bytes sent, {report.received_bytes:,} bytes of answers.</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _tiles(report: Report) -> str:
    latency = report.latency
    tiles = [
        ("offered", f"{report.offered_rps:.1f}/s"),
        ("throughput", f"{report.throughput_rps:.1f}/s"),
        (f"goodput within {report.objective_ms:g} ms", f"{report.goodput_rps:.1f}/s"),
        ("p50", "-" if latency is None else f"{latency.p50_ms:.2f} ms"),
        ("p99", "-" if latency is None else f"{latency.p99_ms:.2f} ms"),
        ("failed", f"{report.error_rate:.2%}"),
    ]
    shown = "".join(
        f'<div class="tile"><span class="soft">{escape(name)}</span><b>{value}</b></div>' for name, value in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _objective(objective_ms: float) -> tuple[str, float]:
    return (f"objective {objective_ms:g} ms", objective_ms)


def _slo(slo: SloFigures) -> list[str]:
    found = "No rate keeps" if slo.rate_rps is None else f"{slo.rate_rps:.1f} requests per second keep"
    trials = sorted(slo.trials, key=lambda trial: trial.rate_rps)
    return [
        "<h2>Highest rate within the objective</h2>",
        f"<p>{found} p99 within {slo.objective_ms:g} ms; ended: {escape(slo.end)}.</p>",
        line_chart(
            Axis("offered requests per second"),
            Axis("p99, ms", Scale.LOG),
            [Series("p99 of a trial", 0, [(trial.rate_rps, trial.p99_ms) for trial in trials])],
            _objective(slo.objective_ms),
        ),
        _table(
            ("offered/s", "requests", "late or failed", "p99 ms", "verdict"),
            [
                (
                    f"{trial.rate_rps:.1f}",
                    str(trial.requests),
                    f"{trial.late_ratio:.2%}",
                    "-" if trial.p99_ms is None else f"{trial.p99_ms:.2f}",
                    trial.verdict,
                )
                for trial in trials
            ],
        ),
    ]


def _latencies(report: Report) -> str:
    rows = (
        ("from the intended send time", report.latency),
        ("from the actual sending", report.service),
        ("of refusals (429, 503, 504)", report.refusals),
    )
    head = ("ms", "count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max")
    return _table(head, [(name, *_cells(latency)) for name, latency in rows if latency is not None])


def _cells(latency: Latency) -> tuple[str, ...]:
    values = (
        *(latency.mean_ms, latency.p50_ms, latency.p90_ms, latency.p95_ms),
        *(latency.p99_ms, latency.p99_9_ms, latency.max_ms),
    )
    return (str(latency.count), *(f"{value:.2f}" for value in values))


def _latency_over_time(report: Report) -> str:
    return line_chart(
        Axis("seconds, by intended send time"),
        Axis("ms", Scale.LOG),
        [
            Series("max", 5, [(moment.at_s, moment.max_ms) for moment in report.moments]),
            Series("p99", 1, [(moment.at_s, moment.p99_ms) for moment in report.moments]),
            Series("p50", 0, [(moment.at_s, moment.p50_ms) for moment in report.moments]),
        ],
        _objective(report.objective_ms),
    )


def _rates_over_time(report: Report) -> str:
    return line_chart(
        Axis("seconds"),
        Axis("per second"),
        [
            Series("offered", 5, [(moment.at_s, moment.offered_rps) for moment in report.moments]),
            Series("throughput", 0, [(moment.at_s, moment.throughput_rps) for moment in report.moments]),
            Series("goodput", 2, [(moment.at_s, moment.goodput_rps) for moment in report.moments]),
            Series("failed", 3, [(moment.at_s, moment.failed_rps) for moment in report.moments]),
        ],
    )


def _stages(report: Report) -> list[str]:
    if not report.stages:
        return []
    parts = [Part(item.name, item.share, f"{item.mean_ms:.2f} ms, {item.share:.0%}") for item in report.stages]
    return ["<h2>Where the time goes (mean of good answers, from the actual sending)</h2>", shares_bar(parts)]


def _versions(report: Report) -> list[str]:
    rows = [
        (f"{item.model}/{item.version}", item.variant, str(item.count), f"{item.p50_ms:.2f}", f"{item.p99_ms:.2f}")
        for item in report.versions
        if item.version
    ]
    return ["<h2>Answered by</h2>", _table(("version", "variant", "count", "p50 ms", "p99 ms"), rows)] if rows else []


def _spans(title: str, spans: Sequence[SpanFigures]) -> list[str]:
    if not spans:
        return []
    head = (title[:-1].lower(), "offered/s", "throughput/s", "goodput/s", "failed", "p50 ms", "p99 ms")
    rows = [
        (
            span.name,
            f"{span.offered_rps:.1f}",
            f"{span.throughput_rps:.1f}",
            f"{span.goodput_rps:.1f}",
            f"{span.error_rate:.2%}",
            "-" if span.latency is None else f"{span.latency.p50_ms:.2f}",
            "-" if span.latency is None else f"{span.latency.p99_ms:.2f}",
        )
        for span in spans
    ]
    return [f"<h2>{escape(title)}</h2>", _table(head, rows)]


def _changes(report: Report) -> list[str]:
    if not report.changes:
        return []
    items = "".join(f"<li>{escape(change_text(change))}</li>" for change in report.changes)
    return ["<h2>Against the baseline</h2>", f"<ul>{items}</ul>"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
