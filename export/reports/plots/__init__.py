"""Draws a report's plots by name: one plot per question that the report has figures for.

`canvas.py` writes PNG and SVG, `bars.py` and `lines.py` draw.
"""

from __future__ import annotations

from pathlib import Path

from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.pareto import comparable
from saccade.export.reports.plots.bars import draw_calibrators, draw_latency, draw_metric, draw_per_class
from saccade.export.reports.plots.canvas import Drawer, svg, write_png
from saccade.export.reports.plots.lines import draw_accuracy_latency, draw_precision_recall, draw_recovery


def drawers_of(report: ExportReport) -> dict[str, Drawer]:
    """Returns the plots that can be drawn of this report, by name."""
    drawers: dict[str, Drawer] = {}
    is_judged = report.thresholds.needs_labels
    if is_judged and comparable(report.variants)[0]:
        drawers["accuracy_latency"] = draw_accuracy_latency
    if any(variant.qualify.latency for variant in report.variants):
        drawers["latency"] = draw_latency
    if is_judged:
        drawers["metric"] = draw_metric
    if report.calibration:
        drawers["calibrators"] = draw_calibrators
    if report.sparsity is not None and report.sparsity.recovery.history:
        drawers["recovery"] = draw_recovery
    for variant in report.variants:
        if variant.qualify.curves is not None and variant.qualify.curves.precision_recall:
            drawers[f"precision_recall_{variant.qualify.variant}"] = draw_precision_recall(variant.qualify.variant)
    if is_judged:
        drawers["per_class"] = draw_per_class
    return drawers


def write_plots(report: ExportReport, directory: Path) -> list[Path]:
    """Writes every plot as `<name>.png`."""
    return [write_png(directory / f"{name}.png", draw, report) for name, draw in drawers_of(report).items()]


def svg_plots(report: ExportReport) -> dict[str, str]:
    """Every plot as an SVG element, by name."""
    return {name: svg(name, draw, report) for name, draw in drawers_of(report).items()}
