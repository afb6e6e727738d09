"""Keeps the requests that wait for the device, by instance; each leaves in a batch, as expired, or removed.

Each instance has a lane, which is a sorted list: the place of a request is found by binary search, and no decision has
to sort. Inserting into a lane of 10,000 requests moves 80 KB, which takes some microseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

from saccade.service.worker.scheduling.arrivals import Arrivals
from saccade.service.worker.scheduling.batching import BatchLimits, Decision, HasDeadline, WorkAhead, next_batch
from saccade.service.worker.scheduling.draining import drain_s, padded_size, reach_s
from saccade.service.worker.scheduling.fair_share import Claim, Share, VirtualClock, order_of
from saccade.service.worker.scheduling.latency_model import LatencyModel
from saccade.service.worker.scheduling.run_length import run_rows

_CHECKED_BATCHES = 2  # for each batch that leaves, the waiting requests of so many batches are checked for lateness


class Waiting(HasDeadline, Protocol):
    @property
    def instance_id(self) -> int: ...


WaitingT = TypeVar("WaitingT", bound=Waiting)


@dataclass(slots=True)
class Lane(Generic[WaitingT]):
    """One instance's waiting requests, its limits, and its expected speed."""

    limits: BatchLimits
    latency: LatencyModel
    share: Share
    arrivals: Arrivals = field(default_factory=Arrivals)
    entries: list[tuple[float, int, WaitingT]] = field(default_factory=list)  # (rank, arrival number, request)
    checked_until: int = 0  # index at which the next check for lateness begins
    reaches: dict[int, float] = field(default_factory=dict)  # kept results by place in a batch, for one latency table
    reaches_of_run: int = -1

    @property
    def largest(self) -> int:
        return self.limits.allowed_sizes[-1]

    def drain_s(self) -> float:
        """Returns the expected seconds to run all waiting requests, if no other instance used the device."""
        return drain_s(self.latency, len(self.entries), self.limits.allowed_sizes)

    def reach_s(self, position: int) -> float:
        """Returns the expected seconds until the request at `position` is done, if the device had no other instance."""
        if self.reaches_of_run != self.latency.run_count:
            self.reaches, self.reaches_of_run = {}, self.latency.run_count
        full, place = divmod(position, self.largest)
        reach = self.reaches.get(place)
        if reach is None:
            reach = self.reaches[place] = reach_s(self.latency, place, self.limits.allowed_sizes)
        return full * self.latency.batch_s(self.largest) + reach

    def claim(self) -> Claim:
        first = self.entries[0][2]
        sizes, count = self.limits.allowed_sizes, len(self.entries)
        padded = padded_size(self.latency, count, sizes)
        size = padded or max(size for size in sizes if size <= count)
        return Claim(
            self.share.tag_s,
            self.share.weight,
            first.rank_s,
            first.deadline_s,
            self.latency.batch_s(size),
            self.latency.batch_s(padded or run_rows(self.latency, size, sizes)),
            self.latency.batch_s(1),
        )


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work before a new request for one instance."""

    waiting: int
    wait_s: float  # seconds until the new request would begin to run
    image_s: float  # seconds that each further request adds


class RequestQueue(Generic[WaitingT]):
    """The queue of one device. It is not thread-safe; the device loop guards it with its condition."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane[WaitingT]] = {}
        self._shares: dict[str, Share] = {}
        self._clock = VirtualClock()
        self._numbers = count()
        self._size = 0

    def add_lane(
        self, instance_id: int, limits: BatchLimits, latency: LatencyModel, model: str = "", weight: float = 1.0
    ) -> None:
        """Adds an instance; all of one `model` have one share of the device, and without a name each has its own."""
        share = self._shares.setdefault(model or f"instance {instance_id}", Share(weight))
        self._lanes[instance_id] = Lane(limits, latency, share)

    def remove_lane(self, instance_id: int) -> list[WaitingT]:
        """Removes an instance, and returns the requests that still waited for it, so that they are answered."""
        lane = self._lanes.pop(instance_id, None)
        if lane is None:
            return []
        self._size -= len(lane.entries)
        return [request for _, _, request in lane.entries]

    def push(self, request: WaitingT) -> bool:
        """Adds a request; returns False when its instance is not loaded."""
        lane = self._lanes.get(request.instance_id)
        if lane is None:
            return False
        if not lane.entries:
            self._clock.returns(lane.share, lane.latency.batch_s(lane.largest))
        lane.arrivals.observe(request.submitted_s)
        insort(lane.entries, (request.rank_s, next(self._numbers), request))
        self._size += 1
        return True

    def is_hopeless(self, request: WaitingT, begins_s: float) -> bool:
        """Returns whether a request would be late behind those before it, if it were pushed now.

        `begins_s` is when the device is free. The result is False for an instance that is not loaded.
        """
        lane = self._lanes.get(request.instance_id)
        if lane is None:
            return False
        position = bisect_left(lane.entries, (request.rank_s, float("inf")))
        return self._done_s(lane, position, begins_s) > request.deadline_s

    def remove(self, request: WaitingT) -> bool:
        """Removes a request; returns False when it is not waiting."""
        lane = self._lanes.get(request.instance_id)
        if lane is None:
            return False
        entries = lane.entries
        for index in range(bisect_left(entries, (request.rank_s,)), len(entries)):
            if entries[index][2] is request:
                del entries[index]
                self._size -= 1
                return True
        return False

    def remove_where(self, is_unwanted: Callable[[WaitingT], bool]) -> list[WaitingT]:
        """Removes and returns the matching requests of all instances; it checks every request."""
        removed: list[WaitingT] = []
        for lane in self._lanes.values():
            matching = [request for _, _, request in lane.entries if is_unwanted(request)]
            if matching:
                gone = {id(request) for request in matching}
                lane.entries = [entry for entry in lane.entries if id(entry[2]) not in gone]
                removed.extend(matching)
        self._size -= len(removed)
        return removed

    def __len__(self) -> int:
        return self._size

    def backlogs(self, busy_s: float) -> Iterator[tuple[int, Backlog]]:
        """Yields the backlog of every instance; the device is free in `busy_s` seconds."""
        for instance_id, lane in self._lanes.items():
            own_s = lane.drain_s()
            image_s = lane.latency.batch_s(lane.largest) / lane.largest
            others = [other for other in self._lanes.values() if other.share is not lane.share and other.entries]
            slowdown = 1.0 + sum(other.share.weight for other in others) / lane.share.weight
            wait_s = busy_s + own_s + self._others_s(lane, own_s)
            yield instance_id, Backlog(len(lane.entries), wait_s, image_s * slowdown)

    def _done_s(self, lane: Lane[WaitingT], position: int, begins_s: float) -> float:
        own_s = lane.reach_s(position)
        return begins_s + own_s + self._others_s(lane, own_s)

    def _others_s(self, lane: Lane[WaitingT], own_s: float) -> float:
        """Returns the seconds that other models may run while this one runs for `own_s`, by their shares and work."""
        if len(self._lanes) == 1:
            return 0.0
        total_s = 0.0
        for other in self._lanes.values():
            if other.share is not lane.share and other.entries:
                total_s += min(other.drain_s(), own_s * other.share.weight / lane.share.weight)
        return total_s

    def take(self, now_s: float, ahead: WorkAhead | None = None) -> Decision[WaitingT]:
        """Removes and returns the next batch over all instances, together with requests that can only be late.

        Models run in the order of their shares; one that waits to fill its batch lets the others go first.
        """
        begins_s = now_s if ahead is None else max(now_s, ahead.ends_s)
        expired: list[WaitingT] = []
        look_again_s: float | None = None
        for lane in self._in_order(begins_s):
            decision = self._take_from(lane, now_s, ahead)
            expired.extend(decision.expired)
            if decision.batch:
                run_s = lane.latency.batch_s(decision.rows)
                self._clock.serve(lane.share, run_s)
                expired.extend(self._drop_late(lane, begins_s + run_s, len(decision.batch)))
                return Decision(decision.batch, tuple(expired), None, decision.rows)
            if decision.look_again_s is not None:
                look_again_s = min(look_again_s or decision.look_again_s, decision.look_again_s)
        return Decision((), tuple(expired), look_again_s)

    def _in_order(self, begins_s: float) -> list[Lane[WaitingT]]:
        lanes = [lane for lane in self._lanes.values() if lane.entries]
        if len(lanes) < 2:
            return lanes
        return [lanes[index] for index in order_of([lane.claim() for lane in lanes], begins_s)]

    def _take_from(self, lane: Lane[WaitingT], now_s: float, ahead: WorkAhead | None) -> Decision[WaitingT]:
        """Decides on the first requests of a lane, and on later ones while all before them are expired."""
        expired: list[WaitingT] = []
        shares_device = any(other.share is not lane.share for other in self._lanes.values())
        while True:
            front = [request for _, _, request in lane.entries[: 2 * lane.largest]]
            has_more = len(lane.entries) > len(front)
            gap_s = lane.arrivals.gap_s(now_s)
            decision = next_batch(front, now_s, lane.limits, lane.latency, ahead, gap_s, shares_device=shares_device)
            expired.extend(decision.expired)
            self._drop(lane, (*decision.batch, *decision.expired))
            is_short = len(front) - len(decision.expired) < lane.largest
            if decision.batch or not (has_more and is_short):
                return Decision(decision.batch, tuple(expired), decision.look_again_s, decision.rows)

    def _drop(self, lane: Lane[WaitingT], gone: tuple[WaitingT, ...]) -> None:
        """Removes requests at the front of the lane."""
        if not gone:
            return
        ids = {id(request) for request in gone}
        until = 2 * lane.largest
        lane.entries[:until] = [entry for entry in lane.entries[:until] if id(entry[2]) not in ids]
        self._size -= len(gone)

    def _drop_late(self, lane: Lane[WaitingT], begins_s: float, batch_size: int) -> list[WaitingT]:
        """Removes requests that newer ones have made late by passing them; each call checks a part of the lane."""
        entries = lane.entries
        start = lane.checked_until if lane.checked_until < len(entries) else 0
        window = entries[start : start + _CHECKED_BATCHES * batch_size]
        kept: list[tuple[float, int, WaitingT]] = []
        for entry in window:
            if self._done_s(lane, start + len(kept), begins_s) <= entry[2].deadline_s:
                kept.append(entry)
        lane.checked_until = start + len(kept)
        if len(kept) == len(window):
            return []
        entries[start : start + len(window)] = kept
        self._size -= len(window) - len(kept)
        stay = {entry[1] for entry in kept}
        return [request for _, number, request in window if number not in stay]
