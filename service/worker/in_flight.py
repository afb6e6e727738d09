"""Tracks the batches on a device, which are finished in the order of their start, and predicts when it is free.

While one batch runs, the next is gathered and copied. A batch that is formed early waits for the device and cannot take
later requests. So the next batch is formed at once only when it is full, and otherwise shortly before the device is
free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from saccade.service.worker.scheduling.batching import WorkAhead

# How long before the end of a run the next batch is formed: the time to gather, queue and copy it, or a share of the
# run, because runs vary; the larger of the two counts.
_LEAD_S = 0.0005
_LEAD_SHARE = 0.25

WhatT = TypeVar("WhatT")


@dataclass(frozen=True, slots=True)
class StartedRun(Generic[WhatT]):
    """One started batch and its expected run."""

    what: WhatT
    number: int  # the number that the backend's `start` returned
    started_s: float
    expected_s: float  # seconds of the run alone


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the device is expected to finish its batches."""

    ahead: WorkAhead
    finish_from_s: float  # from this time on, the loop should wait for the oldest batch instead of requests


class InFlight(Generic[WhatT]):
    """The started batches of one device, oldest first."""

    def __init__(self) -> None:
        self._flights: deque[StartedRun[WhatT]] = deque()

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, flight: StartedRun[WhatT]) -> None:
        self._flights.append(flight)

    def take_oldest(self) -> StartedRun[WhatT]:
        return self._flights.popleft()

    def take_all(self) -> list[StartedRun[WhatT]]:
        flights = list(self._flights)
        self._flights.clear()
        return flights

    def outlook(self, now_s: float) -> Outlook | None:
        """Predicts the end of the batches; None when none is in flight."""
        return outlook(self._flights, now_s) if self._flights else None


def outlook(flights: Sequence[StartedRun[WhatT]], now_s: float) -> Outlook:
    """Predicts the end of batches that run one after the other; one that is overdue is expected to end now."""
    ends: list[float] = []
    for flight in flights:
        begins_s = max([flight.started_s, *ends[-1:]])
        ends.append(max(begins_s + flight.expected_s, now_s))
    first, last = flights[0], flights[-1]
    ahead = WorkAhead(ends[-1], ends[-1] - _lead_s(last.expected_s))
    return Outlook(ahead, ends[0] - _lead_s(first.expected_s))


def _lead_s(expected_s: float) -> float:
    return max(_LEAD_S, _LEAD_SHARE * expected_s)
