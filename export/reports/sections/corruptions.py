"""Shows what corrupted pictures cost each variant, against clean pictures and against the eager network."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.export.qualification.qualify_report import CorruptionReport
from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.sections.blocks import Cell, Row, Section, Table, Text


def corruption_section(report: ExportReport) -> Section:
    """A summary and a row per kind; empty where the recipe does not ask for corruptions."""
    found = [(each.qualify.variant, each.qualify.corruptions) for each in report.variants]
    measured = [(name, each) for name, each in found if each is not None]
    if not measured:
        return Section("Corruptions", ())
    first, name = measured[0][1], report.reference.name
    strengths = ", ".join(str(each) for each in first.strengths)
    text = (
        f"The first {first.images} test pictures, corrupted in {len(first.kinds)} ways at strengths {strengths} of 5 "
        f"(Hendrycks & Dietterich). Drops are shares of the metric on clean pictures, where the eager network reaches "
        f"{name} {first.eager_clean:.4f}."
    )
    summary = Table(
        ("variant", f"{name} clean", "below clean", "below eager (upper end)", "worst kind", "below eager (upper end)"),
        tuple(_summary(variant, each) for variant, each in measured),
    )
    kinds = Table(
        ("kind", "eager", *(variant for variant, _ in measured)),
        tuple(_kind_row(kind.kind, [each for _, each in measured]) for kind in first.kinds),
        f"{name} by kind, mean over strengths",
    )
    return Section("Corruptions", (Text(text), summary, kinds))


def _summary(variant: str, found: CorruptionReport) -> Row:
    worst = found.kinds[0]
    return (
        variant,
        f"{found.clean:.4f}",
        f"{found.clean_drop.value:.1%}",
        f"{found.eager_drop.value:+.1%} ({found.eager_drop.ci_high:+.1%})",
        worst.kind,
        f"{worst.eager_drop.value:+.1%} ({worst.eager_drop.ci_high:+.1%})",
    )


def _kind_row(kind: str, measured: Sequence[CorruptionReport]) -> Row:
    figures = [next(each for each in found.kinds if each.kind == kind) for found in measured]
    values = [_mean(figures[0].eager_by_strength), *(_mean(each.by_strength) for each in figures)]
    return (kind, *(Cell(f"{value:.4f}", heat=value) for value in values))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
