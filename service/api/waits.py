"""How long a request would wait for a device, as an API process knows it. Promises: pure; no news is good news.

A worker says with every answer how long a newcomer would wait. Between answers that figure shrinks as time passes, and
grows by what this process has sent since or still decodes. So an estimate that is wrong cannot refuse for ever: without
answers it is gone after as long as it said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

import msgspec

from saccade.service.api.priority import PATIENCE, Priority

_LATEST_SHARE = 0.2  # of the newest run in the running estimate
_OBJECTIVE_RUNS = 10.0
_LEAST_OBJECTIVE_S = 0.25  # ten runs of a tiny model are within what a busy core is late by


class Urgency(msgspec.Struct, frozen=True):
    """How soon a request must be answered, and what it does before it comes to the device."""

    priority: Priority = Priority.NORMAL
    allowed_s: float | None = None  # until its deadline; None while that is not known
    decode_wait_s: float = 0.0
    decode_s: float = 0.0
    names_deadline: bool = True  # False: `allowed_s` is only the default, and the server's objective counts as well


class WaitBounds(msgspec.Struct, frozen=True):
    """How long requests may wait apart from the deadlines that they name."""

    max_wait_s: float = 0.0  # whatever their deadline; 0: no bound
    has_objective: bool = False  # for requests that name no deadline
    objective_s: float = 0.0  # the same in seconds; 0: ten runs of their model

    def allowed_s(self, urgency: Urgency, run_s: float) -> float | None:
        """Seconds within which a request is to be answered; None where that is not known."""
        if urgency.allowed_s is None or urgency.names_deadline or not self.has_objective:
            return urgency.allowed_s
        return min(urgency.allowed_s, self.objective_s or max(_LEAST_OBJECTIVE_S, _OBJECTIVE_RUNS * run_s))


class Wait(msgspec.Struct, frozen=True):
    """What a request would find at a device."""

    wait_s: float  # before its run
    run_s: float


def excess_s(urgency: Urgency, wait: Wait, bounds: WaitBounds) -> float:
    """Seconds that must pass before this request may come in; 0 or less: now.

    Who would not wait at all is always let in: the worker knows better than this process whether it is too late for a
    run.
    """
    # Decoding goes on while the device runs others.
    wait_s = max(urgency.decode_wait_s, wait.wait_s)
    excess = 0.0
    allowed_s = bounds.allowed_s(urgency, wait.run_s)
    if allowed_s is not None:
        own_s = urgency.decode_s + wait.run_s
        excess = wait_s - max(0.0, PATIENCE[urgency.priority] * allowed_s - own_s)
    if bounds.max_wait_s:
        bound_s = bounds.max_wait_s * min(1.0, PATIENCE[urgency.priority] / PATIENCE[Priority.NORMAL])
        excess = max(excess, wait_s - bound_s)
    return excess


class _Told(msgspec.Struct):
    wait_s: float = 0.0
    image_s: float = 0.0
    run_s: float = 0.0
    at_s: float = 0.0
    sent_since: int = 0


class WaitEstimates:
    """The instances of one device. Belongs to an event loop."""

    def __init__(self, senders: int = 1) -> None:
        """`senders` processes send to the device, each taken to send what this one does."""
        self._senders = senders
        self._told: dict[int, _Told] = {}
        self._unanswered: Counter[int] = Counter()

    def sent(self, instance_id: int) -> None:
        """A request went to the worker."""
        self._unanswered[instance_id] += 1
        if instance_id in self._told:
            self._told[instance_id].sent_since += 1

    def answered(self, instance_id: int, wait_s: float, image_s: float, run_s: float, now_s: float) -> None:
        """The worker answered one, and said how long others would wait; `run_s` is 0 where nothing ran."""
        self._unanswered[instance_id] -= 1
        if self._unanswered[instance_id] == 0:
            del self._unanswered[instance_id]
        before = self._told.get(instance_id)
        if before is None:
            self._told[instance_id] = _Told(wait_s, image_s, run_s, now_s)
            return
        before.wait_s, before.image_s, before.at_s, before.sent_since = wait_s, image_s, now_s, 0
        if run_s:
            before.run_s += (run_s - before.run_s) * (_LATEST_SHARE if before.run_s else 1.0)

    def wait(self, instance_id: int, in_flight: int, now_s: float) -> Wait:
        """For a newcomer; `in_flight` are this process's requests that hold a slot for this instance."""
        told = self._told.get(instance_id)
        if told is None:
            return Wait(0.0, 0.0)
        before_worker = max(0, in_flight - self._unanswered[instance_id])
        left_s = max(0.0, told.wait_s - (now_s - told.at_s))
        untold = (before_worker + told.sent_since) * self._senders
        return Wait(left_s + untold * told.image_s, told.run_s)

    def keep_only(self, instance_ids: Set[int]) -> None:
        """Forgets instances that are gone; their numbers never come back."""
        self._told = {key: told for key, told in self._told.items() if key in instance_ids}

    def clear(self) -> None:
        self._told.clear()
        self._unanswered.clear()
