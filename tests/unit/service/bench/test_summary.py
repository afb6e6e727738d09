"""From rows to a report: everything is counted once, and latency starts when a request was due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.bench.records import Columns, RequestEnd, records_of
from tests.unit.service.bench.rows import BAD_IMAGE, OK, REFUSED, TIMEOUT, UNSENT, Row, records_from, report_from

ROWS = st.lists(
    st.builds(
        Row,
        due_s=st.floats(-2.0, 9.9),
        latency_s=st.floats(0.0, 5.0),
        outcome=st.sampled_from([OK, REFUSED, BAD_IMAGE, TIMEOUT, UNSENT]),
        item=st.integers(0, 1),
        lag_s=st.floats(0.0, 0.1),
    ),
    max_size=60,
)


@given(ROWS)
def test_every_measured_request_is_counted_once(rows: list[Row]) -> None:
    report = report_from(rows)

    measured = [row for row in rows if row.due_s >= 0]
    assert report.requests == len(measured) == report.ok + report.failed
    assert sum(item.count for item in report.outcomes) == len(measured)
    assert sum(item.count for item in report.versions) == report.ok
    assert sum(span.requests for span in report.models) == len(measured)
    assert report.ok == sum(row.outcome is OK for row in measured)


def test_answers_count_when_they_come_and_warm_up_only_towards_them() -> None:
    rows = [Row(-0.5, 1.0), Row(1.0, 0.1), Row(9.5, 1.0), Row(-1.0, 0.1)]

    report = report_from(rows)

    assert report.requests == 2
    assert report.throughput_rps == pytest.approx(0.2)  # the first two; the third came too late


def test_goodput_is_what_came_within_the_objective() -> None:
    report = report_from([Row(1.0, 0.1), Row(2.0, 0.19), Row(3.0, 0.5), Row(4.0, 0.01, REFUSED)])

    assert report.goodput_rps == pytest.approx(0.2)
    assert report.goodput_ratio == 0.5
    assert report.error_rate == 0.25
    assert report.refused_rate == 0.25


def test_latency_holds_the_wait_that_service_time_hides() -> None:
    """One stall of two seconds; requests were due every 100 ms, and each was sent when the one before was answered."""
    rows = [Row(0.0, 2.0)] + [Row(number / 10, 2.0 - number / 10, wait_s=2.0 - number / 10) for number in range(1, 20)]

    report = report_from(rows)

    assert report.latency is not None
    assert report.service is not None
    assert report.latency.p50_ms == pytest.approx(1000.0)
    assert report.service.p50_ms == pytest.approx(0.0, abs=1e-6)


def test_refusals_have_a_latency_of_their_own() -> None:
    report = report_from([Row(1.0, 0.2), Row(2.0, 0.003, REFUSED), Row(3.0, 0.001, BAD_IMAGE)])

    assert report.refusals is not None
    assert (report.refusals.count, report.refusals.max_ms) == (1, pytest.approx(3.0))
    assert report.latency is not None
    assert report.latency.count == 1


def test_stage_shares_add_up_to_what_the_client_saw() -> None:
    report = report_from([Row(1.0, 0.010, stages_ms=(1.0, 2.0, 3.0, 0.5, 8.0)), Row(2.0, 0.010)])

    assert [(stage.name, pytest.approx(stage.mean_ms, abs=1e-3)) for stage in report.stages] == [
        ("decode", 1.0),
        ("queue", 2.0),
        ("infer", 3.0),
        ("postprocess", 0.5),
        ("rest of the server", 1.5),
        ("network and client", 2.0),
    ]
    assert sum(stage.share for stage in report.stages) == pytest.approx(1.0)


def test_client_that_is_late_says_so() -> None:
    fast = [Row(number / 100, 0.005) for number in range(900)]
    late = [Row(number / 100, 0.030, lag_s=0.020) for number in range(900)]

    assert report_from(fast).client.note == ""
    assert "client lag, p99 20.0 ms" in report_from(late).client.note
    assert "its cores have other work" in report_from(late).client.note
    assert "--processes" in report_from(fast, busy=0.95).client.note


def test_requests_that_waited_for_a_connection_are_told() -> None:
    report = report_from([Row(number / 100, 0.5, wait_s=0.3) for number in range(900)])

    assert report.client.waited == 900
    assert "--max-in-flight" in report.client.note
    assert not report.client.is_saturated


def test_run_without_a_row_has_a_report() -> None:
    report = report_from([])

    assert (report.requests, report.error_rate, report.latency) == (0, 1.0, None)


def test_rows_of_several_processes_are_told_in_order_with_their_outcomes() -> None:
    parts = []
    for due, outcomes, chosen in (([3.0, 1.0], [REFUSED, OK], [1, 0]), ([2.0], [TIMEOUT], [0])):
        columns = Columns()
        for at_s, number in zip(due, chosen, strict=True):
            for column in (columns.due_s, columns.woken_s, columns.sent_s, columns.done_s):
                column.append(at_s)
            columns.item.append(0)
            columns.outcome.append(number)
            columns.answer_bytes.append(0)
            columns.stages_ms.extend([0.0] * 5)
        parts.append((columns, outcomes))

    records = records_of(parts)

    seen: list[RequestEnd] = [records.outcomes[number] for number in records.outcome]
    assert records.due_s.tolist() == [1.0, 2.0, 3.0]
    assert seen == [REFUSED, TIMEOUT, OK]
    assert len(records_of([])) == 0
    assert np.all(records_from([Row(0.0, 1.0)]).is_ok)
