"""The queue of all instances: turns by deadline, one outcome per request for any arrival pattern."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel
from saccade.service.worker.scheduling.queue import RequestQueue

FULL = BatchLimits((1, 2, 4), 0.0)


@dataclass(frozen=True, eq=False)
class Request:
    instance_id: int
    deadline_s: float
    submitted_s: float = 0.0
    offset_s: float = 0.0

    @property
    def rank_s(self) -> float:
        return self.deadline_s + self.offset_s


def latency_of(seconds_by_size: dict[int, float]) -> LatencyModel:
    model = LatencyModel()
    for size, seconds in seconds_by_size.items():
        model.observe(size, seconds)
    return model


@pytest.fixture
def queue() -> RequestQueue[Request]:
    """Two instances, 1 and 2; every run takes 10 ms."""
    made: RequestQueue[Request] = RequestQueue()
    for instance_id in (1, 2):
        made.add_lane(instance_id, FULL, latency_of({1: 0.01}))
    return made


def test_push_for_an_unknown_instance_is_refused(queue: RequestQueue[Request]) -> None:
    assert not queue.push(Request(99, 1.0))
    assert len(queue) == 0


def test_instance_with_the_earliest_deadline_goes_first(queue: RequestQueue[Request]) -> None:
    queue.push(Request(1, 5.0))
    urgent = Request(2, 1.0)
    queue.push(urgent)

    assert queue.take(0.0).batch == (urgent,)
    assert len(queue) == 1


def test_batch_never_mixes_instances(queue: RequestQueue[Request]) -> None:
    for instance_id in (1, 2, 1, 2):
        queue.push(Request(instance_id, 5.0))

    batches = [queue.take(0.0).batch, queue.take(0.0).batch]

    assert sorted({request.instance_id for request in batch} for batch in batches) == [{1}, {2}]
    assert len(queue) == 0


def test_instance_that_waits_for_a_fuller_batch_lets_others_go_first() -> None:
    # given an urgent instance that may wait, and a patient one that may not
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, BatchLimits((1, 4), 0.5), latency_of({1: 0.01}))
    queue.add_lane(2, FULL, latency_of({1: 0.01}))
    queue.push(Request(1, 5.0))
    ready = Request(2, 9.0)
    queue.push(ready)

    assert queue.take(0.0).batch == (ready,)
    assert queue.take(0.0).look_again_s == pytest.approx(0.5)


@pytest.mark.parametrize(("other", "rows"), [("tiles", 4), ("small", 1)])
def test_run_is_cut_where_another_model_is_on_the_device(other: str, rows: int) -> None:
    # given tiles of 200 ms, and another version of theirs or another model, for which nothing waits
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, FULL, latency_of({1: 0.2, 2: 0.4, 4: 0.8}), "tiles")
    queue.add_lane(2, FULL, latency_of({1: 0.01}), other)
    for _ in range(4):
        queue.push(Request(1, 50.0))

    assert (len(queue.take(0.0).batch), len(queue)) == (rows, 4 - rows)


def test_padded_run_is_not_cut() -> None:
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, FULL, latency_of({1: 0.2, 2: 0.4, 4: 0.25}))
    queue.add_lane(2, FULL, latency_of({1: 0.01}))
    for _ in range(3):
        queue.push(Request(1, 50.0))

    decision = queue.take(0.0)

    assert (len(decision.batch), decision.rows) == (3, 4)


def test_newcomer_is_told_a_wait_as_short_as_the_cut_run() -> None:
    # given one of four tiles that runs, after which another model's request could begin
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, FULL, latency_of({1: 0.2, 2: 0.4, 4: 0.8}))
    queue.add_lane(2, FULL, latency_of({1: 0.01}))
    for _ in range(4):
        queue.push(Request(1, 50.0))
    rows = queue.take(0.0).rows

    assert dict(queue.backlogs(busy_s=0.2 * rows))[2].wait_s == pytest.approx(0.2)
    assert not queue.is_hopeless(Request(2, 0.23), begins_s=0.2 * rows)


def test_look_again_is_the_earliest_of_all_instances() -> None:
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, BatchLimits((1, 4), 0.5), latency_of({1: 0.01}))
    queue.add_lane(2, BatchLimits((1, 4), 0.2), latency_of({1: 0.01}))
    queue.push(Request(1, 5.0))
    queue.push(Request(2, 9.0))

    assert queue.take(0.0).look_again_s == pytest.approx(0.2)


def test_expired_requests_of_all_instances_leave_together_with_a_batch(queue: RequestQueue[Request]) -> None:
    late = Request(1, 0.001)
    live = Request(2, 5.0)
    queue.push(late)
    queue.push(live)

    decision = queue.take(0.0)

    assert decision.expired == (late,)
    assert decision.batch == (live,)
    assert len(queue) == 0


def test_remove_where_takes_matching_requests_of_all_instances(queue: RequestQueue[Request]) -> None:
    kept, gone = Request(1, 5.0), [Request(1, 6.0), Request(2, 7.0)]
    for request in (kept, *gone):
        queue.push(request)

    removed = queue.remove_where(lambda request: request.deadline_s > 5.5)

    assert removed == gone
    assert queue.take(0.0).batch == (kept,)


def test_remove_lane_returns_what_still_waits(queue: RequestQueue[Request]) -> None:
    waiting = Request(1, 5.0)
    queue.push(waiting)

    assert queue.remove_lane(1) == [waiting]
    assert queue.remove_lane(1) == []
    assert not queue.push(Request(1, 5.0))


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    # The first ONNX Runtime session of a process flushes denormals in its thread; Hypothesis refuses to draw them then.
    return st.floats(low, high, allow_subnormal=False)


_ARRIVALS = st.lists(
    st.tuples(seconds(0.0, 1.0), st.integers(1, 3), seconds(0.0, 0.3)),  # arrival, instance, time allowed
    max_size=40,
)


@settings(max_examples=120, deadline=None)
@given(arrivals=_ARRIVALS, delay_s=st.sampled_from([0.0, 0.01, 0.2]), run_s=st.sampled_from([0.0, 0.004, 0.05]))
def test_every_request_has_exactly_one_outcome_for_any_arrival_pattern(
    arrivals: list[tuple[float, int, float]], delay_s: float, run_s: float
) -> None:
    queue: RequestQueue[Request] = RequestQueue()
    latency = {size: run_s * (1 + size / 4) for size in (1, 2, 4)}
    for instance_id in (1, 2):  # requests for the third are refused at the door
        queue.add_lane(instance_id, BatchLimits((1, 2, 4), delay_s), latency_of(latency))
    coming = sorted(
        (Request(instance, at_s + allowed_s, at_s) for at_s, instance, allowed_s in arrivals),
        key=lambda request: request.submitted_s,
    )
    outcomes: Counter[int] = Counter()
    pending, now_s = list(coming), 0.0
    for _ in range(10 * len(coming) + 10):  # more turns than that means the loop spins
        while pending and pending[0].submitted_s <= now_s:
            request = pending.pop(0)
            if not queue.push(request):
                outcomes[id(request)] += 1
        decision = queue.take(now_s)
        for request in (*decision.batch, *decision.expired):
            outcomes[id(request)] += 1
        if decision.batch:
            now_s += latency[len(decision.batch)]
            assert now_s <= decision.batch[0].deadline_s + 1e-9
            continue
        wake_ups = [at_s for at_s in (decision.look_again_s, pending[0].submitted_s if pending else None) if at_s]
        if not wake_ups and not decision.expired and not pending:
            break
        now_s = max(now_s, min(wake_ups, default=now_s))

    assert len(queue) == 0
    assert [outcomes[id(request)] for request in coming] == [1] * len(coming)
