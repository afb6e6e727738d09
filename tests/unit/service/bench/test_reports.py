"""The report as JSON, text and a page: complete, escaped, readable by an XML parser, drawn without a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.bench.charts import Axis, Part, Scale, Series, line_chart, shares_bar, ticks_of
from saccade.service.bench.html_report import html_of
from saccade.service.bench.limits import changes_of
from saccade.service.bench.records import End, Outcome
from saccade.service.bench.report import Report, SloFigures, TrialFigures, encoded, figures_of, read_report
from saccade.service.bench.schedule import Step
from saccade.service.bench.text_report import text_of
from saccade.service.errors import BadParameter
from tests.unit.service.bench.rows import BAD_IMAGE, REFUSED, Row, report_from

HOSTILE = "<script>alert('&')</script>"


@pytest.fixture
def report() -> Report:
    """Everything that a report can hold."""
    rows = [
        Row(number / 100, 0.02 + 0.0001 * number, item=number % 2, stages_ms=(1, 2, 3, 4, 11)) for number in range(900)
    ]
    rows += [Row(9.0, 0.001, REFUSED), Row(9.1, 0.001, BAD_IMAGE), Row(9.2, 0.0, Outcome(End.ANSWERED, 500, HOSTILE))]
    found = report_from(rows, steps=(Step(100.0, 5.0), Step(80.0, 5.0)))
    trials = (TrialFigures(100.0, 300, 0.0, 20.0, "met"), TrialFigures(200.0, 300, 0.5, None, "missed"))
    return replace(
        found,
        slo=SloFigures(100.0, 200.0, 200.0, "found", trials),
        changes=changes_of(figures_of(found), figures_of(found)),
    )


def test_json_is_read_back_as_it_was(report: Report, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(encoded(report))

    assert read_report(tmp_path / "run.json") == report
    document = json.loads(encoded(report))
    assert (document["schema"], document["requests"], document["latency"]["count"]) == (1, 903, 900)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"schema": 1}'])
def test_what_is_no_report_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(BadParameter, match=r"run\.json is not a report"):
        read_report(tmp_path / "run.json")


def test_report_of_another_schema_is_refused(report: Report, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(encoded(replace(report, schema=2)))

    with pytest.raises(BadParameter, match="schema 2"):
        read_report(tmp_path / "run.json")


def test_text_tells_every_part(report: Report) -> None:
    text = text_of(report)

    heads = {line[:12].strip() for line in text.splitlines()[1:]}
    assert heads >= {
        *("load", "requests", "throughput", "goodput", "latency", "service", "outcomes", "refusals", "answered by"),
        *("stages", "bytes", "client", "step", "model", "objective", "tried", "change"),
    }
    assert "903 = 900 answered well + 3 failed" in text
    assert "422 Image cannot be used: 1" in text
    assert "100.0/s keeps p99 within 200 ms, 200.0/s does not" in text


def test_run_without_an_answer_can_be_told() -> None:
    empty = report_from([])

    assert "0 = 0 answered well + 0 failed" in text_of(empty)
    assert "nothing was measured" in html_of(empty)


def test_page_is_well_formed_and_fetches_nothing(report: Report) -> None:
    page = html_of(report)

    body = page[page.index("<body>") : page.index("</html>")]
    root = ElementTree.fromstring(body)
    assert len(root.findall(".//svg")) == 5  # search, percentiles, latency and rates over time, stages
    assert HOSTILE not in page
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=|url\(|@import", page) == []


def test_everything_is_drawn_inside_its_frame(report: Report) -> None:
    for svg in ElementTree.fromstring(html_of(report).split("</head>")[1].removesuffix("</html>\n")).iter("svg"):
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for node in svg.iter("circle"):
            assert 0 <= float(node.attrib["cx"]) <= width
            assert 0 <= float(node.attrib["cy"]) <= height
        for node in svg.iter("path"):
            numbers = [float(number) for number in re.findall(r"-?[0-9.]+", node.attrib["d"])]
            assert all(0 <= x <= width for x in numbers[::2])
            assert all(0 <= y <= height for y in numbers[1::2])


# Charts


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_hold_the_range(low: float, span: float) -> None:
    ticks = ticks_of(low, low + span)

    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + span - 1e-6 * step
    assert 2 <= len(ticks) <= 8


def test_line_breaks_where_nothing_was_measured() -> None:
    points: list[tuple[float, float | None]] = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0)]

    svg = line_chart(Axis("x"), Axis("y"), [Series("s", 0, points)])

    (path,) = re.findall(r' d="([^"]+)"', svg)
    assert (path.count("M"), path.count("L")) == (2, 1)


def test_tail_has_as_much_room_as_the_rest() -> None:
    points = [(90.0, 1.0), (99.0, 1.0), (99.9, 1.0)]

    svg = line_chart(Axis("x", Scale.PERCENTILE), Axis("y", Scale.LOG), [Series("s", 0, points)])

    first, second, third = (float(x) for x in re.findall(r'cx="([0-9.]+)"', svg))
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_shares_are_as_wide_as_they_are_large() -> None:
    svg = shares_bar([Part("a", 0.25, "1 ms"), Part("b", 0.75, "3 ms")])

    assert re.findall(r'width="([0-9.]+)" height="34"', svg) == ["180.0", "540.0"]
