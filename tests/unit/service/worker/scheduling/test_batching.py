"""The batching decision: earliest deadline first, padding where it pays, no compute for what would be late."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.service.worker.scheduling.batching import BatchLimits, WorkAhead, next_batch

NO_DELAY = BatchLimits(allowed_sizes=(1, 2, 4, 8), max_queue_delay_s=0.0)


@dataclass(frozen=True)
class Request:
    deadline_s: float
    submitted_s: float = 0.0
    offset_s: float = 0.0

    @property
    def rank_s(self) -> float:
        return self.deadline_s + self.offset_s


@dataclass(frozen=True)
class Table:
    """Latency grows linearly: `fixed_s` per run, `each_s` per image."""

    fixed_s: float = 0.010
    each_s: float = 0.001

    def batch_s(self, batch_size: int) -> float:
        return self.fixed_s + self.each_s * batch_size

    def usual_range_s(self, batch_size: int) -> tuple[float, float]:
        return self.batch_s(batch_size), self.batch_s(batch_size)

    def is_known(self, batch_size: int) -> bool:
        return True

    def since_s(self, batch_size: int) -> float:
        return 0.0


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    # The first ONNX Runtime session of a process flushes denormals in its thread; Hypothesis refuses to draw them then.
    return st.floats(low, high, allow_subnormal=False)


def requests(count: int, deadline_s: float = 100.0) -> list[Request]:
    return [Request(deadline_s + index) for index in range(count)]


def test_nothing_waiting_gives_an_empty_decision() -> None:
    decision = next_batch([], 0.0, NO_DELAY, Table())

    assert (decision.batch, decision.expired, decision.look_again_s, decision.rows) == ((), (), None, 0)


def test_long_run_is_cut_only_beside_other_models() -> None:
    tiles, slow = requests(9), Table(fixed_s=0.0, each_s=0.06)

    assert len(next_batch(tiles, 0.0, NO_DELAY, slow).batch) == 8
    beside = next_batch(tiles, 0.0, NO_DELAY, slow, shares_device=True)
    assert (beside.batch, beside.rows) == ((tiles[0],), 1)
    assert len(next_batch(tiles, 0.0, NO_DELAY, Table(fixed_s=0.2, each_s=0.06), shares_device=True).batch) == 8


def test_earliest_deadline_goes_first_whatever_the_arrival_order() -> None:
    late, middle, early = Request(30.0), Request(20.0), Request(10.0)

    decision = next_batch([late, early, middle], 0.0, NO_DELAY, Table())

    assert decision.batch == (early, middle)


@pytest.mark.parametrize(("waiting", "size"), [(1, 1), (2, 2), (3, 2), (5, 4), (7, 4), (8, 8), (20, 8)])
def test_batch_is_the_largest_allowed_size_that_is_filled_where_padding_does_not_pay(waiting: int, size: int) -> None:
    decision = next_batch(requests(waiting), 0.0, NO_DELAY, Table())

    assert (len(decision.batch), decision.rows) == (size, size)


GPU_LIMITS = BatchLimits((1, 8, 32), max_queue_delay_s=0.0)
GPU = Table(fixed_s=0.0008, each_s=0.0001)  # 0.9 ms for one, 1.6 ms for eight


def test_batch_is_padded_where_that_pays() -> None:
    decision = next_batch(requests(7), 0.0, GPU_LIMITS, GPU)

    assert (len(decision.batch), decision.rows) == (7, 8)


@pytest.mark.parametrize("urgent", [0, 6])
def test_batch_is_not_padded_where_a_deadline_would_be_missed(urgent: int) -> None:
    waiting = requests(7)
    waiting[urgent] = Request(0.0015, offset_s=0.0 if urgent == 0 else 1000.0)

    decision = next_batch(waiting, 0.0, GPU_LIMITS, GPU)

    assert (len(decision.batch), decision.rows) == (1, 1)


def test_deadline_of_a_padded_batch_counts_from_when_it_would_begin() -> None:
    waiting = [Request(2.0015), *requests(6)]

    late = next_batch(waiting, 1.9, GPU_LIMITS, GPU, WorkAhead(ends_s=2.0, form_from_s=1.9))
    early = next_batch(waiting, 1.9, GPU_LIMITS, GPU)

    assert (late.rows, early.rows) == (1, 8)


def test_batch_shrinks_until_it_meets_the_earliest_deadline() -> None:
    # given eight requests; a batch of 4 takes 14 ms, of 8 takes 18 ms, and the first must be done in 15 ms
    waiting = [Request(0.015), *requests(7)]

    decision = next_batch(waiting, 0.0, NO_DELAY, Table())

    assert len(decision.batch) == 4


def test_expired_request_is_dropped_before_batching() -> None:
    # given one request that even alone would end after its deadline
    late, live = Request(0.010), Request(10.0)

    decision = next_batch([late, live], 0.0, NO_DELAY, Table())

    assert decision.expired == (late,)
    assert decision.batch == (live,)


def test_request_that_just_makes_its_deadline_is_run() -> None:
    exact = Request(Table().batch_s(1))

    assert next_batch([exact], 0.0, NO_DELAY, Table()).batch == (exact,)


# Times that are exact in binary, so that a run can end at a deadline to the last bit
EXACT = Table(fixed_s=0.5, each_s=0.25)


def test_full_batch_that_just_makes_a_deadline_is_not_made_smaller() -> None:
    waiting = [Request(EXACT.batch_s(4)), *requests(3)]

    assert len(next_batch(waiting, 0.0, NO_DELAY, EXACT).batch) == 4


def test_batch_that_just_makes_a_deadline_is_padded() -> None:
    # given runs of 8.25 s for one and of 10 s for eight
    table = Table(fixed_s=8.0, each_s=0.25)
    waiting = [Request(10.0), *requests(6)]

    decision = next_batch(waiting, 0.0, BatchLimits((1, 8), 0.0), table)

    assert (len(decision.batch), decision.rows) == (7, 8)


def test_queue_delay_waits_for_a_fuller_batch() -> None:
    limits = BatchLimits((1, 2, 4), max_queue_delay_s=0.005)

    decision = next_batch([Request(10.0, submitted_s=1.0)], 1.002, limits, Table())

    assert decision.batch == ()
    assert decision.look_again_s == pytest.approx(1.005)


def test_queue_delay_counts_from_the_first_request_that_waits() -> None:
    limits = BatchLimits((1, 2, 4), max_queue_delay_s=0.005)
    waiting = [Request(9.0, submitted_s=1.004), Request(10.0, submitted_s=1.0)]

    decision = next_batch(waiting, 1.005, limits, Table())

    assert len(decision.batch) == 2


def test_full_batch_does_not_wait_for_the_queue_delay() -> None:
    limits = BatchLimits((1, 2), max_queue_delay_s=1.0)

    assert len(next_batch(requests(2), 0.0, limits, Table()).batch) == 2


def test_deadline_cuts_the_wait_for_a_fuller_batch_short() -> None:
    # given a long queue delay, and a deadline that a full batch of 4 (14 ms) would miss when started after 0.086 s
    limits = BatchLimits((1, 2, 4), max_queue_delay_s=1.0)
    waiting = [Request(0.100)]

    before = next_batch(waiting, 0.080, limits, Table())
    after = next_batch(waiting, 0.087, limits, Table())

    assert before.look_again_s == pytest.approx(0.086)
    assert after.batch == (waiting[0],)


def test_wait_ends_for_the_earliest_deadline_of_all_that_wait() -> None:
    # given a full batch of 4 that takes 14 ms, and one patient request beside an urgent one
    limits = BatchLimits((1, 2, 4), max_queue_delay_s=1.0)

    decision = next_batch([Request(0.100), Request(0.900)], 0.080, limits, Table())

    assert decision.look_again_s == pytest.approx(0.086)


def test_expired_requests_are_named_even_while_the_others_wait() -> None:
    limits = BatchLimits((1, 4), max_queue_delay_s=1.0)
    late, live = Request(0.001), Request(10.0)

    decision = next_batch([late, live], 0.0, limits, Table())

    assert decision.expired == (late,)
    assert decision.batch == ()
    assert decision.look_again_s is not None


@settings(max_examples=150, deadline=None)
@given(
    deadlines=st.lists(seconds(0.0, 0.2), max_size=30),
    now_s=seconds(0.0, 0.1),
    delay_s=seconds(0.0, 0.05),
    fixed_s=seconds(0.0, 0.02),
    each_s=seconds(0.0, 0.005),
)
def test_any_decision_keeps_its_promises(
    deadlines: list[float], now_s: float, delay_s: float, fixed_s: float, each_s: float
) -> None:
    limits, table = BatchLimits((1, 2, 4, 8), delay_s), Table(fixed_s, each_s)
    waiting = [Request(deadline, submitted_s=0.0) for deadline in deadlines]

    decision = next_batch(waiting, now_s, limits, table)

    chosen = [id(request) for request in (*decision.batch, *decision.expired)]
    assert len(set(chosen)) == len(chosen)
    assert all(request.deadline_s - now_s < table.batch_s(1) + 1e-9 for request in decision.expired)
    if decision.batch:
        assert decision.rows in limits.allowed_sizes
        assert decision.rows >= len(decision.batch)
        assert now_s + table.batch_s(decision.rows) <= decision.batch[0].deadline_s + 1e-9
        left = [item for item in waiting if id(item) not in chosen]
        assert all(item.deadline_s >= decision.batch[-1].deadline_s for item in left)
    elif len(decision.expired) < len(waiting):
        assert decision.look_again_s is not None
        assert decision.look_again_s > now_s


# While the device works on other batches


def test_batch_that_is_not_full_waits_for_company_until_the_device_is_nearly_free() -> None:
    ahead = WorkAhead(ends_s=2.0, form_from_s=1.5)

    early = next_batch(requests(7), 1.0, NO_DELAY, Table(), ahead)
    late = next_batch(requests(7), 1.5, NO_DELAY, Table(), ahead)

    assert (early.batch, early.look_again_s) == ((), 1.5)
    assert len(late.batch) == 4


def test_full_batch_is_formed_at_once_whatever_runs() -> None:
    decision = next_batch(requests(9), 1.0, NO_DELAY, Table(), WorkAhead(ends_s=2.0, form_from_s=1.5))

    assert len(decision.batch) == 8


def test_deadlines_count_from_when_the_batch_would_begin() -> None:
    # given a device that is busy until 2.0, and runs of 0.011 s and more
    ahead = WorkAhead(ends_s=2.0, form_from_s=1.5)
    too_late, in_time = Request(2.010), Request(2.012)

    decision = next_batch([too_late, in_time], 1.6, NO_DELAY, Table(), ahead)

    assert decision.expired == (too_late,)
    assert decision.batch == (in_time,)


def test_size_is_what_still_meets_the_earliest_deadline_behind_other_work() -> None:
    ahead = WorkAhead(ends_s=2.0, form_from_s=1.5)
    waiting = [Request(2.0145, 0.0), *requests(7)]

    assert len(next_batch(waiting, 1.6, NO_DELAY, Table(), ahead).batch) == 4
    assert len(next_batch(waiting, 1.6, NO_DELAY, Table()).batch) == 8
