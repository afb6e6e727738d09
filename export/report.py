"""Renders an export report as Markdown, with plots. Promises: measured figures only, denials included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.export_report import REPORT_JSON, REPORT_MARKDOWN, ExportReport, VariantReport
from export.plots import write_plots

Row = tuple[str, ...]


def write_report(report: ExportReport, directory: Path) -> list[Path]:
    """Writes report.json, report.md and the plots; returns the paths."""
    plots = write_plots(report, directory)
    json_path, markdown_path = directory / REPORT_JSON, directory / REPORT_MARKDOWN
    json_path.write_text(report.model_dump_json(indent=2) + "\n")
    markdown_path.write_text(markdown(report, [plot.name for plot in plots]))
    return [json_path, markdown_path, *plots]


def markdown(report: ExportReport, plot_names: list[str]) -> str:
    """The report as text."""
    reference = report.reference
    lines = [
        f"# {report.model}",
        "",
        f"{report.task.value}, {len(report.labels)} classes, source `{report.source}`, "
        f"weights `{report.weights[:19]}`, {report.created}.",
        f"Eager fp32 on {reference.images} test images: {reference.name} {reference.value:.4f} "
        f"[{reference.ci_low:.4f}, {reference.ci_high:.4f}] (95 % bootstrap interval).",
        "",
        *_untrained(report),
        "## Variants",
        *_table(
            ("variant", "gate", "metric", "interval", "drop (upper end)", "MiB", "ms at batch 1", "best images/s"),
            [_variant_row(variant) for variant in report.variants],
        ),
        "",
        *_gates(report),
        *_latency(report),
        *_speed(report),
        *_calibration(report),
        *_fidelity(report),
        *_conversion(report),
        *_targets(report),
        *_per_class(report),
        "",
        "## How it was made",
        *_table(("fact", "value"), [(key, str(value)) for key, value in report.network.items()]),
        "",
        *_table(
            ("step", "digest", "seconds"),
            [(step.step, step.digest[:12], f"{step.seconds:.2f}") for step in report.steps],
        ),
        "",
        *_table(("environment", "value"), list(report.environment.items())),
        "",
        *(f"![{name}]({name})" for name in plot_names),
    ]
    return "\n".join(lines) + "\n"


def _untrained(report: ExportReport) -> list[str]:
    if report.weights != "random":
        return []
    return ["**The weights are random: this network was never trained, and its answers mean nothing.**", ""]


def _variant_row(variant: VariantReport) -> Row:
    figures = variant.qualify
    return (
        figures.variant,
        "accepted" if variant.gate.accepted else "**denied**",
        f"{figures.metric.value:.4f}",
        f"[{figures.metric.ci_low:.4f}, {figures.metric.ci_high:.4f}]",
        f"{figures.drop.value:+.4f} ({figures.drop.ci_high:+.4f})",
        f"{figures.file_bytes / 2**20:.2f}",
        f"{figures.latency[0].p50_ms:.2f}" if figures.latency else "-",
        f"{max((latency.images_per_s for latency in figures.latency), default=0.0):.0f}",
    )


def _gates(report: ExportReport) -> list[str]:
    lines: list[str] = []
    for variant in report.variants:
        rows = [
            (check.name, "pass" if check.passed else "**fail**", str(check.value), str(check.limit), check.detail)
            for check in variant.gate.checks
        ]
        lines += [
            f"## Gate: {variant.qualify.variant} {'accepted' if variant.gate.accepted else 'denied, not published'}",
            *_table(("check", "verdict", "value", "limit", "detail"), rows),
            "",
        ]
    return lines


def _latency(report: ExportReport) -> list[str]:
    rows = [
        (
            variant.qualify.variant,
            str(figure.batch_size),
            f"{figure.p50_ms:.2f}",
            f"{figure.p90_ms:.2f}",
            f"{figure.p99_ms:.2f}",
            f"{figure.images_per_s:.0f}",
        )
        for variant in report.variants
        for figure in variant.qualify.latency
    ]
    device = report.variants[0].qualify.measured_on
    return [
        f"## Latency on {device.name}, {device.threads} threads",
        *_table(("variant", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s"), rows),
        "",
    ]


def _speed(report: ExportReport) -> list[str]:
    rows = [
        (
            variant.qualify.variant,
            str(figure.batch_size),
            f"{figure.deploy_images_per_s:.0f}",
            f"{figure.bare_images_per_s:.0f}",
            f"{figure.ratio:.3f} [{figure.ci_low:.3f}, {figure.ci_high:.3f}]",
        )
        for variant in report.variants
        for figure in variant.qualify.speed
    ]
    return [
        "## Deploy graph (uint8) against bare graph (normalised float), images/s, measured in turns",
        *_table(("variant", "batch", "deploy", "bare", "ratio"), rows),
        "",
    ]


def _calibration(report: ExportReport) -> list[str]:
    lines: list[str] = []
    for table in report.calibration:
        rows = [(figure.calibrator, f"{figure.tuning_metric:.4f}") for figure in table.candidates]
        lines += [
            f"## Calibrators of {table.variant}, on {table.tuning_images} tuning images",
            *_table(("calibrator", report.reference.name), rows),
            "",
        ]
    return lines


def _fidelity(report: ExportReport) -> list[str]:
    found = report.fidelity
    if found is None:
        return []
    rows = [
        ("images", str(found.images)),
        ("pixels within one level", f"{found.share_within_one_level:.6f}"),
        ("worst image", f"{found.worst_image}: {found.worst_image_share:.6f}"),
        ("largest difference, levels", f"{found.max_difference:.2f}"),
        *(("not comparable", text) for text in found.failures),
        *(("larger than the graph's input", text) for text in found.beyond_canvas),
    ]
    return [f"## Preprocessing: the server's pixels against {found.transform}", *_table(("", "figure"), rows), ""]


def _conversion(report: ExportReport) -> list[str]:
    rows = [(each.output, str(each.batch_size), f"{each.relative_l2:.1e}") for each in report.conversion]
    lines = [
        "## Conversion: the ONNX file against the eager network",
        *_table(("output", "batch", "relative L2"), rows),
    ]
    if report.folds:
        folds = [(fold.name, str(fold.layers), f"{fold.relative_error:.1e}") for fold in report.folds]
        lines += ["", "## Folded before conversion", *_table(("fold", "layers", "relative L2"), folds)]
    return [*lines, ""]


def _targets(report: ExportReport) -> list[str]:
    verdicts = ["yes" if each.supported else f"no, {each.reason}; {each.fallback} serves" for each in report.targets]
    lines = [f"TensorRT takes this network: {verdict}." for verdict in verdicts]
    if report.not_batchable_reason:
        lines.append(f"**Images never share a batch**: {report.not_batchable_reason}.")
    return [*lines, ""] if lines else []


def _per_class(report: ExportReport) -> list[str]:
    names = tuple(variant.qualify.variant for variant in report.variants)
    shown = report.shown_classes()
    title = "## Per class" if len(shown) == len(report.labels) else f"## Per class: the worst {len(shown)}"
    rows = [
        (report.labels[index], *(_figure(variant.qualify.per_class[index]) for variant in report.variants))
        for index in shown
    ]
    return [title, *_table(("class", *names), rows)]


def _table(header: Row, rows: Sequence[Row]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
