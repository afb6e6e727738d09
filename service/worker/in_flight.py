"""Batches that a device works on. Promises: finished in the order in which they were started; what follows is pure.

While one batch runs, the next is gathered and copied. It is formed late: a batch formed early stands in line and
leaves its places to nobody. So it starts at once only when it is full, and else shortly before the device is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from saccade.service.worker.scheduling.batching import WorkAhead

# Gathering, queueing and copying take so long, and runs vary by so much: the earlier of two figures counts.
_LEAD_S = 0.0005
_LEAD_SHARE = 0.25

WhatT = TypeVar("WhatT")


@dataclass(frozen=True, slots=True)
class Flight(Generic[WhatT]):
    """One started batch."""

    what: WhatT
    number: int  # as the backend's `start` named it
    started_s: float
    expected_s: float  # of the run alone


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the device is expected to be done."""

    ahead: WorkAhead
    finish_from_s: float  # the oldest batch had better be waited for from then on


class InFlight(Generic[WhatT]):
    """The batches of one device, oldest first."""

    def __init__(self) -> None:
        self._flights: deque[Flight[WhatT]] = deque()

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, flight: Flight[WhatT]) -> None:
        self._flights.append(flight)

    def take_oldest(self) -> Flight[WhatT]:
        return self._flights.popleft()

    def take_all(self) -> list[Flight[WhatT]]:
        flights = list(self._flights)
        self._flights.clear()
        return flights

    def outlook(self, now_s: float) -> Outlook | None:
        """None when nothing is in flight."""
        return outlook(self._flights, now_s) if self._flights else None


def outlook(flights: Sequence[Flight[WhatT]], now_s: float) -> Outlook:
    """One batch runs after the other. One that takes longer than expected is expected to end now."""
    ends: list[float] = []
    for flight in flights:
        begins_s = max([flight.started_s, *ends[-1:]])
        ends.append(max(begins_s + flight.expected_s, now_s))
    first, last = flights[0], flights[-1]
    ahead = WorkAhead(ends[-1], ends[-1] - _lead_s(last.expected_s))
    return Outlook(ahead, ends[0] - _lead_s(first.expected_s))


def _lead_s(expected_s: float) -> float:
    return max(_LEAD_S, _LEAD_SHARE * expected_s)
