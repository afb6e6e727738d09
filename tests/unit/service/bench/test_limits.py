"""The grammar of --fail-if, and when a run fails by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.bench.limits import FIGURES, condition_from, failures_of
from saccade.service.bench.report import Report, SloFigures, figures_of
from saccade.service.errors import BadParameter
from tests.unit.service.bench.rows import REFUSED, TIMEOUT, Row, report_from


@pytest.fixture
def report() -> Report:
    """One answer of 100 ms, one of 300 ms, two that are none."""
    return report_from([Row(1.0, 0.1), Row(2.0, 0.3), Row(3.0, 0.001, REFUSED), Row(4.0, 1.0, TIMEOUT)])


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("p99_ms>50", True),
        ("p99_ms > 300.1", False),
        ("requests>=4", True),
        ("requests>4", False),
        ("goodput_rps<900", True),
        ("goodput_rps<0.05", False),
        ("error_rate>=0.5", True),
        ("error_rate<=0.5", True),
        ("error_rate>5e-1", False),
        ("refused_max_ms>20", False),
        ("requests<4", False),
        ("max_ms>-1", True),
    ],
)
def test_condition_is_checked_against_the_report(report: Report, text: str, fails: bool) -> None:
    assert (failures_of(report, [condition_from(text)]) != []) == fails


def test_failure_names_the_condition_and_the_value(report: Report) -> None:
    assert failures_of(report, [condition_from("p99_ms>50"), condition_from("p50_ms>1e9")]) == ["p99_ms>50: it is 300"]


@given(st.text(max_size=20) | st.from_regex(r"[a-z0-9_]{1,12}(<|>|==|=>)?[0-9.e-]{0,6}", fullmatch=True))
def test_nothing_but_the_grammar_is_understood(text: str) -> None:
    try:
        condition = condition_from(text)
    except BadParameter as error:
        assert "there are: requests" in str(error) or "p99_ms>50" in str(error) or "not a number" in str(error)  # noqa: PT017
    else:
        assert condition.figure in FIGURES
        assert math.isfinite(condition.limit)


@pytest.mark.parametrize(
    "text", ["__import__('os')>1", "p99_ms>50 or 1", "p99_ms", "p99>50", "p99_ms>x", "p99_ms>1.2.3"]
)
def test_bad_condition_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        condition_from(text)


def test_every_figure_of_the_grammar_is_measured(report: Report) -> None:
    assert set(figures_of(report)) == set(FIGURES)


def test_what_was_not_measured_fails() -> None:
    empty = report_from([Row(1.0, 1.0, TIMEOUT)])

    assert failures_of(empty, [condition_from("p99_ms>50")]) == [
        "no request was answered well: see the outcomes",
        "p99_ms>50: nothing was measured for p99_ms",
    ]


def test_no_refusal_is_no_slow_refusal() -> None:
    assert failures_of(report_from([Row(1.0, 0.1)]), [condition_from("refused_p99_ms>20")]) == []


def test_interrupted_run_fails() -> None:
    interrupted = report_from([Row(1.0, 0.1)], ending="interrupted")
    search = replace(report_from([Row(1.0, 0.1)]), slo=SloFigures(10.0, None, 200.0, "interrupted", ()))

    assert ["interrupted" in failures_of(each, [])[0] for each in (interrupted, search)] == [True, True]


def test_search_without_a_rate_fails() -> None:
    found = replace(report_from([Row(1.0, 0.1)]), slo=SloFigures(None, 1.0, 50.0, "no rate", ()))

    assert failures_of(found, [condition_from("slo_rps<100")]) == [
        "no rate keeps p99 within 50 ms",
        "slo_rps<100: it is 0",
    ]
