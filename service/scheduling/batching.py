"""Decides what runs next. Promises: pure; earliest deadline first; no compute for a request that cannot make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class HasDeadline(Protocol):
    """What the decision needs to know of a waiting request."""

    @property
    def deadline_s(self) -> float: ...
    @property
    def submitted_s(self) -> float: ...


RequestT = TypeVar("RequestT", bound=HasDeadline)


class LatencyTable(Protocol):
    def batch_s(self, batch_size: int) -> float:
        """Expected seconds of one run at an allowed batch size."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    allowed_sizes: tuple[int, ...]  # ascending from 1; these are warmed at start
    max_queue_delay_s: float  # counted from the first waiting request


@dataclass(frozen=True, slots=True)
class WorkAhead:
    """What the device still has to do before a batch that is formed now."""

    ends_s: float  # when that batch would begin to run
    form_from_s: float  # until then a batch that is not full waits for company: it would only stand in line


@dataclass(frozen=True, slots=True)
class Decision(Generic[RequestT]):
    """`batch` runs now, `expired` are answered at once, and an empty batch may name when to look again."""

    batch: tuple[RequestT, ...]
    expired: tuple[RequestT, ...]
    look_again_s: float | None


def next_batch(
    waiting: Sequence[RequestT],
    now_s: float,
    limits: BatchLimits,
    latency: LatencyTable,
    ahead: WorkAhead | None = None,
) -> Decision[RequestT]:
    """The batch to run now that the device is free, or next where it has work `ahead`.

    Earliest deadline first. Size is the largest allowed one that the waiting requests fill and that still meets
    the earliest deadline, so no row is padding. A request that even a batch of one would answer late is expired.
    """
    begins_s = now_s if ahead is None else max(now_s, ahead.ends_s)
    latest_start = begins_s + latency.batch_s(1)
    expired = tuple(request for request in waiting if request.deadline_s < latest_start)
    live = sorted((request for request in waiting if request.deadline_s >= latest_start), key=_deadline)
    if not live:
        return Decision((), expired, None)
    size = _largest_in_time(len(live), live[0].deadline_s - begins_s, limits, latency)
    if len(live) < limits.allowed_sizes[-1]:
        until_s = _may_wait_until(live, limits, latency)
        if ahead is not None:
            until_s = max(until_s, ahead.form_from_s)
        if now_s < until_s:
            return Decision((), expired, until_s)
    return Decision(tuple(live[:size]), expired, None)


def _deadline(request: HasDeadline) -> float:
    return request.deadline_s


def _largest_in_time(count: int, budget_s: float, limits: BatchLimits, latency: LatencyTable) -> int:
    best = 1
    for size in limits.allowed_sizes:
        if size <= count and latency.batch_s(size) <= budget_s:
            best = size
    return best


def _may_wait_until(live: Sequence[HasDeadline], limits: BatchLimits, latency: LatencyTable) -> float:
    """Waiting ends at the queue delay, or earlier when the fullest batch would miss the earliest deadline."""
    first_submitted_s = min(request.submitted_s for request in live)
    last_start_s = live[0].deadline_s - latency.batch_s(limits.allowed_sizes[-1])
    return min(first_submitted_s + limits.max_queue_delay_s, last_start_s)
