"""The report as JSON, text and a page: complete, escaped, readable by an XML parser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import msgspec
import pytest

from saccade.service.bench.page import html_of
from saccade.service.bench.records import End, RequestEnd
from saccade.service.bench.report import DeviceEnergy, EnergyFigures, Report, SloFigures, TrialFigures, encoded
from saccade.service.bench.text_report import text_of
from tests.unit.service.bench.rows import BAD_IMAGE, REFUSED, Row, report_from

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('&')</script>"


@pytest.fixture
def report() -> Report:
    """Everything that a report can hold."""
    rows = [
        Row(number / 100, 0.02 + 0.0001 * number, item=number % 2, stages_ms=(1, 2, 3, 4, 11)) for number in range(900)
    ]
    rows += [
        Row(9.0, 0.001, REFUSED),
        Row(9.1, 0.001, BAD_IMAGE),
        Row(9.2, 0.0, RequestEnd(End.ANSWERED, 500, HOSTILE)),
    ]
    found = report_from(rows)
    trials = (TrialFigures(100.0, 300, 0.0, 20.0, "met"), TrialFigures(200.0, 300, 0.5, None, "missed"))
    energy = EnergyFigures((DeviceEnergy("package-0", 45.0, 0.5),), ("NVML: no driver",))
    return replace(found, slo=SloFigures(100.0, 200.0, 200.0, "found", trials), energy=energy)


def test_json_is_read_back_as_it_was(report: Report) -> None:
    assert msgspec.json.decode(encoded(report), type=Report) == report
    document = json.loads(encoded(report))
    assert (document["schema"], document["requests"], document["latency"]["count"]) == (1, 903, 900)


def test_text_tells_every_part(report: Report) -> None:
    text = text_of(report)

    heads = {line[:12].strip() for line in text.splitlines()[1:]}
    assert heads >= {
        *("load", "requests", "throughput", "goodput", "latency", "service", "outcomes", "refusals", "answered by"),
        *("stages", "bytes", "client", "model", "objective", "tried"),
    }
    assert "903 = 900 answered well + 3 failed" in text
    assert "422 Image cannot be used: 1" in text
    assert "package-0: 45.0 W, 0.5 J per good answer" in text
    assert "energy       not told: NVML: no driver" in text
    assert "100.0/s keeps p99 within 200 ms, 200.0/s does not" in text


def test_run_without_an_answer_can_be_told() -> None:
    empty = report_from([])

    assert "0 = 0 answered well + 0 failed" in text_of(empty)
    assert "0 = 0 answered well + 0 failed" in html_of(empty)


def test_page_is_well_formed_and_fetches_nothing(report: Report) -> None:
    page = html_of(report)

    body = page[page.index("<body>") : page.index("</html>")]
    root = ElementTree.fromstring(body)
    (drawing,) = root.iter(f"{SVG}svg")
    labels = {text.text for text in drawing.iter(f"{SVG}text")}
    assert labels >= {"latency, ms", "p99, ms", "objective 200 ms", "max", "99 %"}
    assert HOSTILE not in page
    assert "<script" not in page
    assert re.findall(r"src=|href=\"(?!#)|url\((?!#)|@import", page) == []
