"""The report as one self-contained HTML page: its text and its plots, every text escaped, nothing fetched."""

from __future__ import annotations

import io
from html import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saccade.service.bench.report import Report
from saccade.service.bench.text_report import text_of

_STYLE = "body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; } pre { overflow-x: auto; }"


def html_of(report: Report) -> str:
    """The report as a whole HTML document."""
    title = escape(f"{', '.join(report.load.models)}: {report.load.arrivals}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{escape(report.load.created)}</p>\n"
        f"<pre>{escape(text_of(report))}</pre>\n{_plots(report)}\n</body></html>\n"
    )


def _plots(report: Report) -> str:
    """One SVG element: latency by percentile, and the search's trials if there was one."""
    figure = Figure(figsize=(9, 7 if report.slo else 3.5), layout="constrained")
    panels = figure.subplots(2 if report.slo else 1, squeeze=False)[:, 0]
    percents, latencies_ms = [item[0] for item in report.curve], [item[1] for item in report.curve]
    # Percentiles are evenly spaced, so that the tail has as much room as the rest.
    panels[0].plot(range(len(percents)), latencies_ms, marker="o")
    panels[0].set_xticks(range(len(percents)), [f"{percent:g} %" if percent < 100 else "max" for percent in percents])
    panels[0].set_xlabel("of good answers, from the intended send time")
    _finish(panels[0], "latency, ms", report.objective_ms)
    if report.slo is not None:
        trials = [trial for trial in sorted(report.slo.trials, key=lambda each: each.rate_rps) if trial.p99_ms]
        panels[1].plot([trial.rate_rps for trial in trials], [trial.p99_ms for trial in trials], marker="o")
        panels[1].set_xlabel("offered requests per second")
        _finish(panels[1], "p99, ms", report.slo.objective_ms)
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):  # writes text as text, not as outlines
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _finish(axes: Axes, label: str, objective_ms: float) -> None:
    axes.set(yscale="log", ylabel=label)
    axes.axhline(objective_ms, linestyle="--", color="tab:red", label=f"objective {objective_ms:g} ms")
    axes.grid(alpha=0.3)
    axes.legend()
