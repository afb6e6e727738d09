"""Temperatures in the report. Promises: none is recommended that does not fit."""

from __future__ import annotations

import pytest

from saccade.export.qualification.trust_figures import ConfidenceFigure
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.report_files import markdown
from tests.support.reports import check, decision, qualified, whole_report


@pytest.mark.parametrize(
    ("temperature", "error", "told", "untold"),
    [
        (2.0, 0.02, ("`task: {temperature: 2}` in the recipe would",), ("at the limit", "larger on test")),
        (19.998, 0.02, ("at the limit of what is tried (0.05 to 20)",), ("in the recipe would", "larger on test")),
        (19.998, 0.15, ("at the limit", "larger on test pictures, 0.1500 instead of 0.0500"), ("in the recipe would",)),
        (0.0501, 0.02, ("at the limit",), ("in the recipe would", "larger on test")),
    ],
)
def test_a_temperature_is_recommended_only_where_it_fits(
    temperature: float, error: float, told: tuple[str, ...], untold: tuple[str, ...]
) -> None:
    figure = ConfidenceFigure(
        served_temperature=1.0,
        served_error=0.05,
        unscaled_error=0.05,
        fitted_temperature=temperature,
        fitted_error=error,
        images=60,
    )

    variant = VariantReport(qualify=qualified("fp32", confidence=figure), gate=decision(check("a")))
    page = markdown(whole_report(variants=(variant,)))

    assert [each for each in told if each not in page] == []
    assert [each for each in untold if each in page] == []
