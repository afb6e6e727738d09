"""Slices and corruptions in the report. Promises: the worst first, and nothing where nothing was asked."""

from __future__ import annotations

from saccade.export.qualification.qualify_report import (
    CorruptionFigure,
    CorruptionReport,
    MetricDrop,
    SliceFigure,
)
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.report_files import markdown
from tests.support.reports import check, decision, qualified, whole_report

DROP = MetricDrop(value=0.01, ci_low=-0.01, ci_high=0.02)


def a_slice(name: str, images: int, value: float) -> SliceFigure:
    return SliceFigure(
        name=name, images=images, value=value, ci_low=value - 0.1, ci_high=value + 0.05, reference=0.9, drop=DROP
    )


def told(**figures: object) -> str:
    variants = tuple(
        VariantReport(qualify=qualified(name, **figures), gate=decision(check("a"))) for name in ("fp32", "int8-cpu")
    )
    return markdown(whole_report(variants=variants))


def test_a_slice_below_all_others_is_marked_and_a_small_one_is_said_not_to_be_judged() -> None:
    text = told(slices=(a_slice("camera=a|b", 240, 0.7), a_slice("camera=c", 12, 0.88)))

    assert "### int8-cpu: by slice, the worst first" in text
    assert "| **camera=a\\|b** | 240 | 0.7000 | [0.6000, 0.7500] | 0.9000 | +0.0100 (+0.0200) | yes |" in text
    assert "has none: only the floor `min_slice_metric` denies it, which is not set." in text
    assert "| camera=c | 12 | 0.8800 | [0.7800, 0.9300] | 0.9000 | +0.0100 (+0.0200) | no |" in text


def test_corruptions_have_a_row_per_variant_and_per_kind() -> None:
    kinds = tuple(
        CorruptionFigure(
            kind=kind, by_strength=(0.8, value), eager_by_strength=(0.9, 0.9), clean_drop=0.3, eager_drop=DROP
        )
        for kind, value in (("snow", 0.2), ("fog", 0.6))
    )
    found = CorruptionReport(
        images=200, strengths=(1, 5), clean=0.95, eager_clean=0.96, clean_drop=DROP, eager_drop=DROP, kinds=kinds
    )

    text = told(corruptions=found)

    assert "The first 200 test pictures, corrupted in 2 ways at strengths 1, 5 of 5" in text
    assert "| int8-cpu | 0.9500 | 1.0% | +1.0% (+2.0%) | snow | +1.0% (+2.0%) |" in text
    assert "| snow | 0.9000 | 0.5000 | 0.5000 |" in text


def test_a_report_without_them_says_nothing_of_them() -> None:
    text = markdown(whole_report())

    assert "## Slices" not in text
    assert "## Corruptions" not in text
