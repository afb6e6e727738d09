"""Decides which requests form the next batch: earliest deadline first, and none that would be answered too late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from saccade.service.worker.scheduling.draining import filled_s, padded_size
from saccade.service.worker.scheduling.latency_model import LatencyTable
from saccade.service.worker.scheduling.run_length import RunTimes, run_rows


class HasDeadline(Protocol):
    """The properties of a waiting request that the decision reads."""

    @property
    def deadline_s(self) -> float: ...
    @property
    def submitted_s(self) -> float: ...
    @property
    def rank_s(self) -> float:
        """The key by which requests are ordered: the deadline plus the offset of the priority."""


_LEAST_WAIT_S = 0.0001  # a shorter wait than this is not possible for a thread

RequestT = TypeVar("RequestT", bound=HasDeadline)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    allowed_sizes: tuple[int, ...]  # ascending from 1; each is warmed at start
    max_queue_delay_s: float  # counted from the arrival of the first waiting request


@dataclass(frozen=True, slots=True)
class WorkAhead:
    """The work that the device still has before a batch that is formed now."""

    ends_s: float  # time at which the batch would begin to run
    form_from_s: float  # until this time a batch that is not full waits for more requests, since the device is busy


@dataclass(frozen=True, slots=True)
class Decision(Generic[RequestT]):
    """`batch` runs now, `expired` are answered at once; without a batch, `look_again_s` is when to decide again."""

    batch: tuple[RequestT, ...]
    expired: tuple[RequestT, ...]
    look_again_s: float | None
    rows: int = 0  # rows of the run, an allowed size; rows beyond `batch` are padding


def next_batch(
    waiting: Sequence[RequestT],
    now_s: float,
    limits: BatchLimits,
    latency: RunTimes,
    ahead: WorkAhead | None = None,
    gap_s: float | None = None,
    *,
    shares_device: bool = False,
) -> Decision[RequestT]:
    """Returns the batch to run now that the device is free, or next where it has work `ahead`.

    Requests with the earliest deadlines come first. The size is the largest allowed one that the waiting requests
    fill and that still meets every deadline in it. Where the latency table shows a gain and all deadlines are met, it
    is a larger size that takes all of them and padding. A request that even a batch of one would answer late is
    expired. Of a long queue, the requests at its front are enough. `gap_s` is the expected time between two requests;
    while it is None, the full queue delay is used. With `shares_device`, other models wait for the end of the run, so a
    long one is cut where that costs no speed.
    """
    begins_s = now_s if ahead is None else max(now_s, ahead.ends_s)
    latest_start = begins_s + latency.batch_s(1)
    expired = tuple(request for request in waiting if request.deadline_s < latest_start)
    live = sorted((request for request in waiting if request.deadline_s >= latest_start), key=_rank)
    if not live:
        return Decision((), expired, None)
    if len(live) < limits.allowed_sizes[-1]:
        until_s = _may_wait_until(live, now_s, limits, latency, gap_s)
        if ahead is not None:
            until_s = max(until_s, ahead.form_from_s)
        if now_s < until_s:
            return Decision((), expired, until_s)
    rows = _padded_in_time(live, begins_s, limits, latency)
    if rows is None:
        rows = _largest_in_time(live, begins_s, limits, latency)
        if shares_device:
            rows = run_rows(latency, rows, limits.allowed_sizes)
    return Decision(tuple(live[:rows]), expired, None, rows)


def _rank(request: HasDeadline) -> float:
    return request.rank_s


def _padded_in_time(
    live: Sequence[HasDeadline], begins_s: float, limits: BatchLimits, latency: LatencyTable
) -> int | None:
    rows = padded_size(latency, len(live), limits.allowed_sizes)
    if rows is None or begins_s + latency.batch_s(rows) > min(request.deadline_s for request in live):
        return None
    return rows


def _largest_in_time(live: Sequence[HasDeadline], begins_s: float, limits: BatchLimits, latency: LatencyTable) -> int:
    best, counted, earliest_s = 1, 0, live[0].deadline_s
    for size in limits.allowed_sizes:
        if size > len(live):
            break
        earliest_s = min(earliest_s, *(request.deadline_s for request in live[counted:size]))
        counted = size
        if begins_s + latency.batch_s(size) <= earliest_s:
            best = size
    return best


def _may_wait_until(
    live: Sequence[HasDeadline], now_s: float, limits: BatchLimits, latency: LatencyTable, gap_s: float | None
) -> float:
    """Returns when waiting for more requests must end: the queue delay, a deadline, or earlier without a gain."""
    first_submitted_s = min(request.submitted_s for request in live)
    last_start_s = min(request.deadline_s for request in live) - latency.batch_s(limits.allowed_sizes[-1])
    until_s = min(first_submitted_s + limits.max_queue_delay_s, last_start_s)
    if gap_s is None or until_s <= now_s:
        return until_s
    wait_s = wait_that_pays_s(len(live), gap_s, limits.allowed_sizes, latency, until_s - now_s)
    return min(until_s, now_s + max(wait_s, _LEAST_WAIT_S)) if wait_s > 0 else now_s


def wait_that_pays_s(
    count: int, gap_s: float, allowed_sizes: Sequence[int], latency: LatencyTable, at_most_s: float
) -> float:
    """Returns the seconds to wait for a larger batch than `count` requests fill; 0 means to run at once.

    Waiting leaves the device idle until enough requests have arrived, and saves the difference between one run and two.
    The size with the largest gain counts. The requests that arrive are assumed to fill batches, without padding.
    """
    best_s, most_saved_s = 0.0, 0.0
    for size in allowed_sizes:
        wait_s = (size - count) * gap_s
        if size <= count or wait_s > at_most_s:
            continue
        apart_s = filled_s(latency, count, allowed_sizes) + filled_s(latency, size - count, allowed_sizes)
        saved_s = apart_s - latency.batch_s(size) - wait_s
        if saved_s > most_saved_s:
            best_s, most_saved_s = wait_s, saved_s
    return best_s
