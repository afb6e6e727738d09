"""Who cannot make it is told early, who is in line keeps the line, and nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.service.api.priority import RANK_OFFSET_S, Priority
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.queue import RequestQueue
from tests.support.simulated_device import Request, SimulatedDevice
from tests.unit.service.worker.scheduling.test_queue import latency_of

RUNS = {1: 0.010, 2: 0.012, 4: 0.016}


@pytest.fixture
def queue() -> RequestQueue[Request]:
    made: RequestQueue[Request] = RequestQueue()
    made.add_lane(1, BatchLimits((1, 2, 4), 0.0), latency_of(RUNS))
    return made


def fill(queue: RequestQueue[Request], count: int, deadline_s: float = 1.0) -> list[Request]:
    requests = [Request(1, deadline_s, 0.0) for _ in range(count)]
    for request in requests:
        queue.push(request)
    return requests


def test_request_behind_too_many_is_hopeless_long_before_its_deadline(queue: RequestQueue[Request]) -> None:
    fill(queue, 40)  # 160 ms of work

    assert queue.is_hopeless(Request(1, 1.1, 0.0), begins_s=1.0)
    assert not queue.is_hopeless(Request(1, 1.1, 0.0), begins_s=0.9)


def test_only_those_that_go_before_it_count(queue: RequestQueue[Request]) -> None:
    fill(queue, 40, deadline_s=2.0)

    assert not queue.is_hopeless(Request(1, 1.02, 0.0), begins_s=1.0)
    assert queue.is_hopeless(Request(1, 1.02, 0.0, offset_s=RANK_OFFSET_S[Priority.LOW]), begins_s=1.0)


def test_other_models_take_their_share_of_the_time(queue: RequestQueue[Request]) -> None:
    queue.add_lane(2, BatchLimits((1, 2, 4), 0.0), latency_of(RUNS))
    fill(queue, 20)  # 80 ms, and 10 ms for the one behind them
    newcomer = Request(1, 1.0 + 0.120, 0.0)
    assert not queue.is_hopeless(newcomer, begins_s=1.0)

    for _ in range(40):
        queue.push(Request(2, 5.0, 0.0))

    assert queue.is_hopeless(newcomer, begins_s=1.0)


def test_unknown_instance_is_not_the_estimates_business(queue: RequestQueue[Request]) -> None:
    assert not queue.is_hopeless(Request(9, 0.0, 0.0), begins_s=1.0)
    assert not queue.remove(Request(9, 0.0, 0.0))


def test_request_that_others_pushed_back_is_told_before_its_deadline(queue: RequestQueue[Request]) -> None:
    # given one that could make it, until eighty with earlier deadlines came
    patient = Request(1, 0.300, 0.0)
    assert not queue.is_hopeless(patient, 0.0)
    queue.push(patient)
    fill(queue, 80, deadline_s=0.290)
    now_s, told_s = 0.0, None
    while len(queue) and told_s is None:
        decision = queue.take(now_s)
        told_s = now_s if patient in decision.expired else None
        now_s += RUNS[4]

    assert told_s is not None
    assert told_s < 0.200


def test_removed_request_leaves_those_of_the_same_rank(queue: RequestQueue[Request]) -> None:
    requests = fill(queue, 5)

    assert queue.remove(requests[2])
    assert not queue.remove(requests[2])
    assert len(queue) == 4
    assert queue.take(0.0).batch == (requests[0], requests[1], requests[3], requests[4])


def test_many_expired_at_the_front_do_not_hide_one_that_can_be_run(queue: RequestQueue[Request]) -> None:
    late = fill(queue, 30, deadline_s=0.5)
    live = fill(queue, 1, deadline_s=5.0)

    decision = queue.take(1.0)

    assert decision.batch == tuple(live)
    assert decision.expired == tuple(late)


def test_backlog_is_what_a_newcomer_finds_before_it(queue: RequestQueue[Request]) -> None:
    fill(queue, 9)

    ((instance_id, backlog),) = queue.backlogs(busy_s=0.5)

    assert (instance_id, backlog.waiting) == (1, 9)
    assert backlog.wait_s == pytest.approx(0.5 + 2 * RUNS[4] + RUNS[1])
    assert backlog.image_s == pytest.approx(RUNS[4] / 4)


_PRIORITIES = st.sampled_from([Priority.HIGH, Priority.NORMAL, Priority.LOW])
_ARRIVALS = st.lists(st.tuples(st.floats(0.0, 3.0, allow_subnormal=False), _PRIORITIES), max_size=200)


@settings(max_examples=60, deadline=None)
@given(arrivals=_ARRIVALS)
def test_low_priority_is_never_starved(arrivals: list[tuple[float, Priority]]) -> None:
    """Whoever is due more than two offsets earlier goes first, whatever its priority."""
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, BatchLimits((1,), 0.0), latency_of({1: 0.01}))
    waiting: list[Request] = []
    for at_s, priority in arrivals:
        request = Request(1, 1000.0 + at_s, 0.0, RANK_OFFSET_S[priority])
        queue.push(request)
        waiting.append(request)
    bound_s = RANK_OFFSET_S[Priority.LOW] - RANK_OFFSET_S[Priority.HIGH]

    while waiting:
        (taken,) = queue.take(0.0).batch
        waiting.remove(taken)
        assert all(other.deadline_s >= taken.deadline_s - bound_s for other in waiting)


def test_low_priority_is_served_beside_an_endless_stream_of_high_priority() -> None:
    # given high priority at nine tenths of capacity, each due in 5 s, and a low one due in 5 s as well
    high = [Request(1, at / 380 + 5.0, at / 380, RANK_OFFSET_S[Priority.HIGH]) for at in range(380 * 20)]
    low = Request(1, 7.0 + 5.0, 7.0, RANK_OFFSET_S[Priority.LOW])

    ran = SimulatedDevice().drive(sorted([*high, low], key=lambda request: request.submitted_s), 20.0)

    assert ran.refused["quiet"] == 0
    assert ran.late["quiet"] == 0
