"""Decides whether a request may enter now, and at which instance: pure functions that `Admission` calls.

A request is refused when no slot is free, when waiting would use up the time until its deadline, or when the wait would
exceed a bound of the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from saccade.service.api.instance_estimates import UNMEASURED_IMAGE_S, Wait
from saccade.service.api.priority import SLOTS_LEFT, WAIT_SHARE, Priority
from saccade.service.errors import NotReady, Overloaded
from saccade.service.ipc.messages import InstanceStatus

_RETRY_AFTER_S = 1.0  # a full set of slots drains within a second on every model shipped here
_OBJECTIVE_RUNS = 10.0
_LEAST_OBJECTIVE_S = 0.25  # ten runs of a tiny model are within what a busy core is late by
_NO_WAIT_S = 0.002  # an idle server says a little more than nothing
_LEAST_SHARE = 0.8  # of what a request may wait by its priority, however late answers come
_EQUAL_S = 1e-6  # two times that differ by less are treated as equal


class Urgency(msgspec.Struct, frozen=True):
    """How soon a request must be answered, and how long its decoding will take before it reaches the device."""

    priority: Priority = Priority.NORMAL
    allowed_s: float | None = None  # seconds until the deadline; None while the deadline is not known
    decode_wait_s: float = 0.0
    decode_s: float = 0.0
    names_deadline: bool = True  # False: `allowed_s` is only the default, and an objective counts as well
    objective_s: float = 0.0  # of the model's own document; 0: the server's
    delay_s: float = 0.0  # by which nearly all answers come later than expected, at most


class WaitBounds(msgspec.Struct, frozen=True):
    """How long requests may wait apart from the deadlines that they name."""

    max_wait_s: float = 0.0  # bound on every request's wait, whatever its deadline; 0 means no bound
    has_objective: bool = False  # True: requests without a deadline must be answered within an objective
    objective_s: float = 0.0  # that objective, where the model has none of its own; 0: ten runs of the model

    def allowed_s(self, urgency: Urgency, run_s: float) -> float | None:
        """Returns the seconds within which a request must be answered; None where that is not known."""
        if urgency.allowed_s is None or urgency.names_deadline or not self.has_objective:
            return urgency.allowed_s
        named_s = urgency.objective_s or self.objective_s
        return min(urgency.allowed_s, named_s or max(_LEAST_OBJECTIVE_S, _OBJECTIVE_RUNS * run_s))


class Offer(msgspec.Struct, frozen=True):
    """What one instance can give a request now: free slots, the expected wait, and its speed."""

    instance: InstanceStatus
    free_slots: int
    slot_count: int
    wait: Wait
    image_s: float | None = None  # expected seconds per image; None before the first answer

    def slots_for(self, priority: Priority) -> int:
        """Counts the free slots, less those that requests of this priority must leave free for others."""
        return max(0, self.free_slots - int(SLOTS_LEFT[priority] * self.slot_count))


def open_offers(offers: Sequence[Offer], urgency: Urgency, bounds: WaitBounds) -> list[Offer]:
    """Returns the offers that this request may take.

    Raises NotReady when there is no offer, and Overloaded, with the shortest time to retry, when it may take none.
    """
    if not offers:
        raise NotReady("the device worker is restarting; retry shortly")
    found, refusals = [], []
    for offer in offers:
        refusal = refusal_of(offer, urgency, bounds)
        if refusal is None:
            found.append(offer)
        else:
            refusals.append(refusal)
    if not found:
        raise min(refusals, key=lambda refusal: refusal.retry_after_s)
    return found


def refusal_of(offer: Offer, urgency: Urgency, bounds: WaitBounds) -> Overloaded | None:
    """Returns the reason why an instance cannot take a request, or None when it can."""
    if offer.slots_for(urgency.priority) == 0:
        return Overloaded(
            f"1 of {offer.slot_count} slots asked for, {offer.free_slots} free; retry later, or raise "
            "SACCADE_SLOTS if the latency allows",
            max(_RETRY_AFTER_S, offer.wait.wait_s),
            "slots",
        )
    over_s = excess_s(urgency, offer.wait, bounds)
    if over_s <= 0:
        return None
    wait_s = max(offer.wait.wait_s, urgency.decode_wait_s)
    allowed_s = bounds.allowed_s(urgency, offer.wait.run_s)
    if bounds.max_wait_s and wait_s > bounds.max_wait_s:
        why = "longer than SACCADE_MAX_ESTIMATED_WAIT_MS; retry later"
    elif urgency.names_deadline or allowed_s is None:
        why = "too long for its deadline; retry later, or allow it more time with deadline_ms"
    else:
        why = (
            f"too long to be answered within {1000 * allowed_s:.0f} ms, the objective of requests that name no "
            "deadline; retry later, or allow it more time with deadline_ms"
        )
    place = "for the device" if offer.wait.wait_s >= urgency.decode_wait_s else "to be decoded"
    return Overloaded(f"a request would wait about {1000 * wait_s:.0f} ms {place} now, {why}", over_s, "wait")


def excess_s(urgency: Urgency, wait: Wait, bounds: WaitBounds) -> float:
    """Returns the seconds that must pass before this request may enter; 0 or less means that it may enter now.

    A request that would hardly wait always enters: the worker knows better than this process whether a run can still
    finish in time, and what is known of the time that decoding takes is mended only by images that are decoded.
    """
    # An image is decoded while the device runs other requests, so the two waits overlap.
    wait_s = max(urgency.decode_wait_s, wait.wait_s)
    if wait_s <= _NO_WAIT_S:
        return 0.0
    excess = 0.0
    allowed_s = bounds.allowed_s(urgency, wait.run_s)
    if allowed_s is not None:
        own_s = urgency.decode_s + wait.run_s
        share_s = WAIT_SHARE[urgency.priority] * allowed_s
        in_time_s = max(_LEAST_SHARE * share_s, min(share_s, allowed_s - urgency.delay_s))
        excess = wait_s - max(0.0, in_time_s - own_s)
    if bounds.max_wait_s:
        bound_s = bounds.max_wait_s * min(1.0, WAIT_SHARE[urgency.priority] / WAIT_SHARE[Priority.NORMAL])
        excess = max(excess, wait_s - bound_s)
    return excess


def roomy_offers(offers: Sequence[Offer], image_count: int, priority: Priority) -> list[Offer]:
    """Returns the offers with slots for all images; when there are none, the one with the most slots."""
    roomy = [offer for offer in offers if offer.slots_for(priority) >= image_count]
    return roomy or [max(offers, key=lambda offer: offer.slots_for(priority))]


def best_offer(offers: Sequence[Offer], outstanding_s: Mapping[str, float], image_count: int, number: int) -> Offer:
    """Returns the offer whose device would finish first, counting its present work and these images.

    `outstanding_s` maps each device to the seconds of its present work. An instance without a measurement is assumed to
    be as fast as the fastest measured one, so that it is tried. Equal offers take turns by `number`, a request counter.
    """
    known = [offer.image_s for offer in offers if offer.image_s is not None]
    fastest_s = min(known, default=UNMEASURED_IMAGE_S)

    def done_s(offer: Offer) -> float:
        image_s = fastest_s if offer.image_s is None else offer.image_s
        return outstanding_s.get(offer.instance.device, 0.0) + image_count * image_s

    first_s = min(done_s(offer) for offer in offers)
    equals = [offer for offer in offers if done_s(offer) <= first_s + _EQUAL_S]
    return equals[number % len(equals)]
