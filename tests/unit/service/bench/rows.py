"""Rows of a run for tests, written as a person would tell them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from saccade.service.bench.records import Columns, End, Records, RequestEnd, records_of
from saccade.service.bench.report import LoadFacts, Report
from saccade.service.bench.summary import ClientCost, Scope, report_of
from saccade.service.bench.workload import Item

OK = RequestEnd(End.ANSWERED, 200, "", "1", "fp32")
REFUSED = RequestEnd(End.ANSWERED, 429, "Overloaded")
BAD_IMAGE = RequestEnd(End.ANSWERED, 422, "Image cannot be used")
TIMEOUT = RequestEnd(End.TIMEOUT, title="no answer within 1 s")
UNSENT = RequestEnd(End.UNSENT, title="too many in flight")
ITEMS = (Item("a", "0.jpg", b"head", b"body"), Item("b", "1.jpg", b"head", b"longer body"))


@dataclass(frozen=True, slots=True)
class Row:
    due_s: float
    latency_s: float
    outcome: RequestEnd = OK
    item: int = 0
    lag_s: float = 0.0  # of the client
    wait_s: float = 0.0  # for a connection
    stages_ms: tuple[float, ...] = (math.nan,) * 5


def records_from(rows: Sequence[Row]) -> Records:
    columns, known = Columns(), list(dict.fromkeys(row.outcome for row in rows))
    for row in rows:
        columns.due_s.append(row.due_s)
        columns.woken_s.append(row.due_s + row.lag_s)
        columns.sent_s.append(row.due_s + row.lag_s + row.wait_s)
        columns.done_s.append(row.due_s + row.latency_s)
        columns.item.append(row.item)
        columns.outcome.append(known.index(row.outcome))
        columns.answer_bytes.append(100)
        columns.stages_ms.extend(row.stages_ms)
    return records_of([(columns, known)])


def report_from(
    rows: Sequence[Row],
    window_s: float = 10.0,
    objective_ms: float = 200.0,
    busy: float = 0.1,
    ending: str = "complete",
) -> Report:
    load = LoadFacts("http://test", {"a": 1.0}, "as told", 0, 0.0, window_s, ending, 2, "2026-01-01T00:00:00Z")
    return report_of(load, records_from(rows), Scope(ITEMS, objective_ms), ClientCost(1, busy * window_s, window_s))
