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
class Decision(Generic[RequestT]):
    """`batch` runs now, `expired` are answered at once, and an empty batch may name when to look again."""

    batch: tuple[RequestT, ...]
    expired: tuple[RequestT, ...]
    look_again_s: float | None


def next_batch(
    waiting: Sequence[RequestT], now_s: float, limits: BatchLimits, latency: LatencyTable
) -> Decision[RequestT]:
    """The batch to run now that the device is free.

    Earliest deadline first. Size is the largest allowed one that the waiting requests fill and that still meets
    the earliest deadline, so no row is padding. A request that even a batch of one would answer late is expired.
    """
    latest_start = now_s + latency.batch_s(1)
    expired = tuple(request for request in waiting if request.deadline_s < latest_start)
    live = sorted((request for request in waiting if request.deadline_s >= latest_start), key=_deadline)
    if not live:
        return Decision((), expired, None)
    size = _largest_in_time(len(live), live[0].deadline_s - now_s, limits, latency)
    if len(live) < limits.allowed_sizes[-1]:
        until_s = _may_wait_until(live, limits, latency)
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
