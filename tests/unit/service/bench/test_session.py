"""The story of a run without a server: what is measured, what is recorded."""

from __future__ import annotations

import math

import httpx
import pytest

from saccade.service.bench.coordinator import Closed, Ending, LoadResult
from saccade.service.bench.schedule import Constant, Recorded
from saccade.service.bench.session import BenchRun, Open, _ensure_ready, _window_s, trace_rows
from saccade.service.bench.workload import Workload
from saccade.service.errors import BenchFailed
from tests.unit.service.bench.rows import BAD_IMAGE, ITEMS, Row, records_from, report_from


@pytest.mark.parametrize(
    ("load", "ending", "window_s"),
    [
        (Open(Constant(1.0, 10.0)), Ending.COMPLETE, 10.0),
        (Open(Constant(1.0, 10.0), requests=2), Ending.COMPLETE, 12.5),
        (Open(Recorded((0.0, 2.0))), Ending.COMPLETE, 12.5),
        (Closed(1, math.inf, 0.0, requests=2), Ending.COMPLETE, 12.5),
        (Closed(1, 10.0, 0.0), Ending.COMPLETE, 10.0),
        (Open(Constant(1.0, 10.0), requests=2), Ending.INTERRUPTED, 10.0),
    ],
)
def test_window_is_the_duration_or_lasts_until_the_last_answer(
    load: Open | Closed, ending: Ending, window_s: float
) -> None:
    measured = LoadResult(records_from([Row(0.0, 12.5), Row(2.0, 0.5)]), ending, 10.0, 0.0, 0.0)

    assert _window_s(load, measured) == window_s


def test_recording_holds_what_was_measured_and_how_it_ended() -> None:
    rows = [Row(-1.0, 0.1), Row(0.5, 0.1), Row(1.0, 0.2, BAD_IMAGE, item=1)]
    measured = LoadResult(records_from(rows), Ending.COMPLETE, 10.0, 0.0, 0.0)

    recorded = list(trace_rows(BenchRun(report_from(rows), measured), Workload(ITEMS, {"a": 1.0, "b": 1.0})))

    assert [(row["at_s"], row["model"], row["image"], row["outcome"]) for row in recorded] == [
        (0.5, "a", "0.jpg", "200"),
        (1.0, "b", "1.jpg", "422 Image cannot be used"),
    ]
    assert recorded[1]["latency_ms"] == pytest.approx(200.0)


def answered(status: int, content: bytes) -> httpx.Response:
    return httpx.Response(status, content=content)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (answered(404, b'{"detail": "no model m; there are: a"}'), "there are: a"),
        (answered(401, b'{"detail": "a key is required"}'), "a key is required"),
        (answered(200, b'{"versions": [{"state": "loading"}]}'), r"no version of m is ready \(states: loading\)"),
        (answered(200, b'{"versions": []}'), "states: none"),
        (answered(200, b"<html>"), "--path"),
        (answered(200, b"[]"), "--path"),
    ],
)
def test_server_that_cannot_be_measured_is_refused_before_the_load(response: httpx.Response, message: str) -> None:
    with pytest.raises(BenchFailed, match=message):
        _ensure_ready("http://h", "m", response)


def test_model_with_a_ready_version_is_measured() -> None:
    _ensure_ready("http://h", "m", answered(200, b'{"versions": [{"state": "failed"}, {"state": "ready"}]}'))
