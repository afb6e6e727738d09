"""Shows the metric of each slice of the test pictures, the worst first."""

from __future__ import annotations

from saccade.export.qualification.qualify_report import QualifyReport, SliceFigure
from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.sections.blocks import Block, Cell, Row, Section, Table, Text


def slice_section(report: ExportReport) -> Section:
    """One table per variant; empty where the recipe names no slices."""
    measured = [each.qualify for each in report.variants if each.qualify.slices]
    if not measured:
        return Section("Slices", ())
    least = report.thresholds.test_images_limit(report.reference.name)
    floor = report.thresholds.min_slice_metric
    text = (
        "Marked slices lie below all test pictures together: their intervals do not meet. Slices of fewer than "
        f"{least} pictures are not judged. A drop is what a variant lost against the float network on the same "
        "pictures, so a slice that the float network fails as well, as one that was missing in training, has none: "
        f"only the floor `min_slice_metric` denies it, {'which is not set' if floor is None else f'here {floor:g}'}."
    )
    tables: list[Block] = [
        Table(
            ("slice", "images", report.reference.name, "interval", "eager", "drop (upper end)", "judged"),
            tuple(_row(figure, qualify, least) for figure in qualify.slices),
            f"{qualify.variant}: by slice, the worst first",
            is_folded=number > 0,
        )
        for number, qualify in enumerate(measured)
    ]
    return Section("Slices", (Text(text), *tables))


def _row(figure: SliceFigure, qualify: QualifyReport, least: int) -> Row:
    return (
        Cell(figure.name, "bad") if figure.ci_high < qualify.metric.ci_low else figure.name,
        str(figure.images),
        f"{figure.value:.4f}",
        f"[{figure.ci_low:.4f}, {figure.ci_high:.4f}]",
        f"{figure.reference:.4f}",
        f"{figure.drop.value:+.4f} ({figure.drop.ci_high:+.4f})",
        "yes" if figure.images >= least else "no",
    )
