"""The plan divided among processes: nothing lost, nothing twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.bench.coordinator import ClientLimits, Closed, LoadPlan, parts_of
from saccade.service.bench.schedule import Poisson, SendSchedule, schedule_of
from saccade.service.bench.workload import Item, Workload, endpoint_of, order_of

WORKLOAD = Workload(tuple(Item("m", f"{number}", b"", b"") for number in range(7)), {"m": 1.0})


def plan(load: SendSchedule | Closed, count: int, limits: ClientLimits) -> LoadPlan:
    return LoadPlan(endpoint_of("http://h"), WORKLOAD, load, order_of(WORKLOAD, count, 0), limits)


@given(processes=st.integers(1, 9), max_in_flight=st.integers(1, 50), requests=st.integers(1, 60))
def test_every_request_is_in_exactly_one_part(processes: int, max_in_flight: int, requests: int) -> None:
    schedule = schedule_of(Poisson(10.0, 1.0), seed=1, warm_up_s=0.5, requests=requests)
    whole = plan(schedule, len(schedule.due_s), ClientLimits(processes, 16, max_in_flight, 30.0))

    parts = parts_of(whole, "127.0.0.1")

    sent = sorted((due_s, number) for part in parts for due_s, number in zip(part.due_s, part.order, strict=True))
    assert sent == sorted(zip(schedule.due_s, whole.order, strict=True))
    assert all(part.connections <= part.max_in_flight for part in parts)
    assert sum(part.max_in_flight for part in parts) <= max(max_in_flight, len(parts))


@given(processes=st.integers(1, 9), in_flight=st.integers(1, 50), requests=st.none() | st.integers(1, 100))
def test_closed_loop_is_divided_without_a_remainder(processes: int, in_flight: int, requests: int | None) -> None:
    whole = plan(Closed(in_flight, 1.0, 0.0, requests), 1000, ClientLimits(processes, 16, 1024, 30.0))

    parts = parts_of(whole, "127.0.0.1")

    assert sum(part.closed for part in parts) == in_flight
    assert all(part.closed > 0 and len(part.order) > 0 and part.due_s.size == 0 for part in parts)
    if requests is not None:
        assert sum(part.requests or 0 for part in parts) == requests
    assert np.concatenate([part.order for part in parts]).size == 1000
