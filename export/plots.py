"""Draws a report's plots. Promises: PNG files, drawn without a display, nothing estimated or smoothed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from export.export_report import ExportReport

_SIZE_INCHES = (6.4, 3.8)
_DPI = 110


def write_plots(report: ExportReport, directory: Path) -> list[Path]:
    """Writes one PNG per question that the report has figures for."""
    drawers: dict[str, Callable[[Axes, ExportReport], None]] = {"latency.png": _latency, "metric.png": _metric}
    if report.calibration:
        drawers["calibrators.png"] = _calibrators
    drawers["per_class.png"] = _per_class
    return [_written(directory / name, drawer, report) for name, drawer in drawers.items()]


def _written(path: Path, drawer: Callable[[Axes, ExportReport], None], report: ExportReport) -> Path:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawer(axes, report)
    # Without a fixed Software field two equal plots would differ in bytes between matplotlib versions.
    figure.savefig(path, dpi=_DPI, metadata={"Software": "saccade"})
    return path


def _latency(axes: Axes, report: ExportReport) -> None:
    for variant in report.variants:
        figures = variant.qualify.latency
        sizes = [figure.batch_size for figure in figures]
        middle = [figure.p50_ms for figure in figures]
        upper = [figure.p99_ms - figure.p50_ms for figure in figures]
        axes.errorbar(
            sizes, middle, yerr=[[0.0] * len(sizes), upper], marker="o", capsize=3, label=variant.qualify.variant
        )
    axes.set(
        xlabel="batch size", ylabel="ms per batch (p50, bar to p99)", title=f"{report.model}: latency", ylim=(0, None)
    )
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.legend()


def _metric(axes: Axes, report: ExportReport) -> None:
    named = [("eager", report.reference), *((v.qualify.variant, v.qualify.metric) for v in report.variants)]
    for position, (_, figure) in enumerate(named):
        below, above = max(figure.value - figure.ci_low, 0.0), max(figure.ci_high - figure.value, 0.0)
        axes.errorbar(position, figure.value, yerr=[[below], [above]], fmt="o", capsize=5)
    axes.set_xticks(range(len(named)), [name for name, _ in named])
    axes.set(
        ylabel=f"{report.reference.name} (95 % interval)",
        title=f"{report.model}: {report.reference.images} test images",
    )
    axes.margins(x=0.3)


def _calibrators(axes: Axes, report: ExportReport) -> None:
    table = report.calibration[0]
    values = [figure.tuning_metric for figure in table.candidates]
    axes.bar(range(len(values)), values, color="tab:blue")
    axes.set_xticks(range(len(values)), [figure.calibrator for figure in table.candidates])
    spread = max(max(values) - min(values), 0.005)
    axes.set_ylim(min(values) - spread, max(values) + spread / 2)
    axes.set(ylabel=report.reference.name, title=f"{report.model}: calibrators of {table.variant}, tuning split")


def _per_class(axes: Axes, report: ExportReport) -> None:
    shown = report.shown_classes()
    labels = [report.labels[index] for index in shown]
    positions = np.arange(len(shown))
    width = 0.8 / len(report.variants)
    for index, variant in enumerate(report.variants):
        values = [variant.qualify.per_class[class_id] or 0.0 for class_id in shown]
        axes.bar(
            positions + (index - (len(report.variants) - 1) / 2) * width, values, width, label=variant.qualify.variant
        )
    axes.set_xticks(positions, labels, rotation=45 if max(map(len, labels), default=0) > 3 else 0)
    title = "per class" if len(shown) == len(report.labels) else f"the worst {len(shown)} classes"
    axes.set(ylabel=report.reference.name, title=f"{report.model}: {title}", ylim=(0, 1.02))
    axes.legend(loc="lower right")
