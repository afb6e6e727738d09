"""Draws accuracy against speed, precision-recall and recovery; lines only join measured points."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saccade.export.qualification.curves import PrecisionRecall
from saccade.export.qualification.detection_evidence import RECALL_POINTS
from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.pareto import ParetoPoint, comparable, pareto_set

_MOST_NAMED_CURVES = 12  # more make a legend larger than its plot


def draw_accuracy_latency(figure: Figure, report: ExportReport) -> None:
    """Draws the metric with its interval against latency at batch 1, and against throughput at the best batch size."""
    points, _ = comparable(report.variants)
    left, right = figure.subplots(1, 2, sharey=True)
    _scatter(left, report, points, lambda point: point.p50_ms_batch_1)
    _scatter(right, report, points, lambda point: point.images_per_s)
    left.set(xlabel="ms at batch 1 (p50)", ylabel=f"{report.reference.name} ({report.reference.confidence:.0%})")
    right.set(xlabel="images/s at the best batch size")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")


def draw_precision_recall(variant: str) -> Callable[[Figure, ExportReport], None]:
    """Returns the drawer of one variant's curves."""

    def draw(figure: Figure, report: ExportReport) -> None:
        curves = next(each.qualify.curves for each in report.variants if each.qualify.variant == variant)
        found = curves.precision_recall if curves else ()
        every = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, each in zip(every, found, strict=True):
            _precision_recall(axes, report, each)
        every[0].set(ylabel="precision")
        figure.suptitle(f"{report.model} {variant}", fontsize="medium")
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize="small")

    return draw


def draw_recovery(figure: Figure, report: ExportReport) -> None:
    """Draws the metric on the tuning split, and how many mask entries still change."""
    history = report.sparsity.recovery.history if report.sparsity else ()
    axes = figure.add_subplot()
    steps = [each.step for each in history]
    axes.plot(
        steps, [each.tuning_metric for each in history], marker="o", color="tab:blue", label=report.reference.name
    )
    axes.set(xlabel="step", ylabel=f"{report.reference.name}, tuning split", title=f"{report.model}: recovery of 2:4")
    if report.sparsity and report.sparsity.dense_tuning_metric is not None:
        axes.axhline(report.sparsity.dense_tuning_metric, color="tab:green", linestyle=":", label="dense")
    flips = [(each.step, each.flip_rate) for each in history if each.flip_rate is not None]
    lines = list(axes.get_lines())
    if flips:
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        other.plot(*zip(*flips, strict=True), marker="x", linestyle="--", color="tab:orange", label="flip rate")
        other.set(ylabel="flip rate of mask entries", ylim=(0, None))
        lines += other.get_lines()
    axes.legend(handles=lines, loc="center right")


def _scatter(
    axes: Axes, report: ExportReport, points: tuple[ParetoPoint, ...], across: Callable[[ParetoPoint], float]
) -> None:
    best = pareto_set(points)
    intervals = {each.qualify.variant: each.qualify.metric for each in report.variants}
    for index, point in enumerate(points):
        metric = intervals[point.variant]
        error = [[max(metric.value - metric.ci_low, 0.0)], [max(metric.ci_high - metric.value, 0.0)]]
        marker = "x" if point.is_denied else "o"
        colour = f"C{index % 10}"
        label = f"{point.variant}{' (denied)' if point.is_denied else ''}"
        axes.errorbar(across(point), point.metric, yerr=error, fmt=marker, color=colour, capsize=4, label=label)
    chosen = sorted((across(point), point.metric) for point in points if point.variant in best)
    if chosen:  # a ring marks the set; the line only guides the eye
        places, values = zip(*chosen, strict=True)
        (ring,) = axes.plot(places, values, "o:", color="tab:green", label="Pareto set")
        ring.set(markersize=13, markerfacecolor="none")
    axes.set_xlim(0, max(map(across, points), default=1.0) * 1.15)
    axes.ticklabel_format(useOffset=False)


def _precision_recall(axes: Axes, report: ExportReport, found: PrecisionRecall) -> None:
    for place, (class_id, precision) in enumerate(zip(found.class_ids, found.by_class, strict=True)):
        name = report.labels[class_id] if place < _MOST_NAMED_CURVES else None
        axes.plot(RECALL_POINTS, precision, linewidth=0.9, alpha=0.8, label=name)
    axes.plot(RECALL_POINTS, found.mean, linewidth=2.2, color="tab:red", label="mean")
    axes.set(xlabel="recall", title="" if found.iou is None else f"IoU {found.iou:g}", xlim=(0, 1), ylim=(0, 1.03))
