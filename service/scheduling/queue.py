"""Requests waiting for the device, per instance. Promises: a request is in here once, and leaves with an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from service.scheduling.batching import BatchLimits, Decision, HasDeadline, WorkAhead, next_batch
from service.scheduling.latency_model import LatencyModel


class Waiting(HasDeadline, Protocol):
    @property
    def instance_id(self) -> int: ...


WaitingT = TypeVar("WaitingT", bound=Waiting)


@dataclass(slots=True)
class Lane(Generic[WaitingT]):
    """One instance's waiting requests and what is known of its speed."""

    limits: BatchLimits
    latency: LatencyModel
    waiting: list[WaitingT] = field(default_factory=list)


class RequestQueue(Generic[WaitingT]):
    """Not thread-safe; the worker guards it with its condition."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane[WaitingT]] = {}

    def add_lane(self, instance_id: int, limits: BatchLimits, latency: LatencyModel) -> None:
        self._lanes[instance_id] = Lane(limits, latency)

    def remove_lane(self, instance_id: int) -> list[WaitingT]:
        """Removes an instance; what still waited for it is returned, to be answered."""
        lane = self._lanes.pop(instance_id, None)
        return lane.waiting if lane else []

    def push(self, request: WaitingT) -> bool:
        """False when no such instance is loaded."""
        lane = self._lanes.get(request.instance_id)
        if lane is None:
            return False
        lane.waiting.append(request)
        return True

    def remove_where(self, is_unwanted: Callable[[WaitingT], bool]) -> list[WaitingT]:
        """Removes and returns matching requests of all instances."""
        removed: list[WaitingT] = []
        for lane in self._lanes.values():
            matching = [request for request in lane.waiting if is_unwanted(request)]
            if matching:
                gone = {id(request) for request in matching}
                lane.waiting = [request for request in lane.waiting if id(request) not in gone]
                removed.extend(matching)
        return removed

    def lanes(self) -> Iterator[tuple[int, Lane[WaitingT]]]:
        return iter(self._lanes.items())

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def take(self, now_s: float, ahead: WorkAhead | None = None) -> Decision[WaitingT]:
        """The next batch over all instances, removed from the queue together with whatever expired.

        Instances take turns by earliest deadline; one that would rather fill its batch lets the others go first.
        """
        expired: list[WaitingT] = []
        look_again_s: float | None = None
        for lane in sorted((lane for lane in self._lanes.values() if lane.waiting), key=_earliest_deadline):
            decision = next_batch(lane.waiting, now_s, lane.limits, lane.latency, ahead)
            gone = {id(request) for request in (*decision.batch, *decision.expired)}
            if gone:
                lane.waiting = [request for request in lane.waiting if id(request) not in gone]
            expired.extend(decision.expired)
            if decision.batch:
                return Decision(decision.batch, tuple(expired), None)
            if decision.look_again_s is not None:
                look_again_s = min(look_again_s or decision.look_again_s, decision.look_again_s)
        return Decision((), tuple(expired), look_again_s)


def _earliest_deadline(lane: Lane[WaitingT]) -> float:
    return min(request.deadline_s for request in lane.waiting)
