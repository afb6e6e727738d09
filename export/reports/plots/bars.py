"""Draws bars of what each variant reached: latency, metric, classes, calibrators."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from saccade.export.reports.export_report import ExportReport


def draw_latency(figure: Figure, report: ExportReport) -> None:
    axes = figure.add_subplot()
    every: set[int] = set()
    for variant in report.variants:
        figures = variant.qualify.latency
        if not figures:
            continue
        sizes = [each.batch_size for each in figures]
        every |= set(sizes)
        middle = [each.p50_ms for each in figures]
        upper = [each.p99_ms - each.p50_ms for each in figures]
        axes.errorbar(
            sizes, middle, yerr=[[0.0] * len(sizes), upper], marker="o", capsize=3, label=variant.qualify.variant
        )
    axes.set(
        xlabel="batch size", ylabel="ms per batch (p50, bar to p99)", title=f"{report.model}: latency", ylim=(0, None)
    )
    axes.set_xticks(sorted(every), [str(size) for size in sorted(every)])
    axes.legend()


def draw_metric(figure: Figure, report: ExportReport) -> None:
    axes = figure.add_subplot()
    named = [("eager", report.reference), *((v.qualify.variant, v.qualify.metric) for v in report.variants)]
    for position, (_, each) in enumerate(named):
        below, above = max(each.value - each.ci_low, 0.0), max(each.ci_high - each.value, 0.0)
        axes.errorbar(position, each.value, yerr=[[below], [above]], fmt="o", capsize=5)
    is_long = max(len(name) for name, _ in named) * len(named) > 60
    axes.set_xticks(range(len(named)), [name for name, _ in named], rotation=30 if is_long else 0)
    axes.set(
        ylabel=f"{report.reference.name} ({report.reference.confidence:.0%} interval)",
        title=f"{report.model}: {report.reference.images} test images",
    )
    axes.margins(x=0.3 if len(named) < 4 else 0.1)


def draw_calibrators(figure: Figure, report: ExportReport) -> None:
    """Draws one group of bars per calibrator, one bar per variant."""
    axes = figure.add_subplot()
    names = list(dict.fromkeys(each.calibrator for table in report.calibration for each in table.candidates))
    width = 0.8 / len(report.calibration)
    for index, table in enumerate(report.calibration):
        reached = {each.calibrator: each.tuning_metric for each in table.candidates}
        places = [place for place, name in enumerate(names) if name in reached]
        shifted = [place + (index - (len(report.calibration) - 1) / 2) * width for place in places]
        axes.bar(shifted, [reached[names[place]] for place in places], width, label=table.variant)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(" ".join(names)) > 40 else 0)
    values = [each.tuning_metric for table in report.calibration for each in table.candidates]
    spread = max(max(values) - min(values), 0.005)
    axes.set_ylim(min(values) - spread, max(values) + spread / 2)
    axes.set(ylabel=report.reference.name, title=f"{report.model}: calibrators on the tuning split")
    if len(report.calibration) > 1:
        figure.legend(loc="outside lower center", ncols=4, fontsize="small")


def draw_per_class(figure: Figure, report: ExportReport) -> None:
    axes = figure.add_subplot()
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
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
