"""Whose turn it is among models on one device. Promises: pure; device time by weight, none saved up while idle.

Start-time fair queueing (Goyal, Vin, Cheng: Start-time Fair Queuing, SIGCOMM 1996) over device seconds: every model
has a tag, the time that its past batches took divided by its weight, and the smallest tag goes first. A model that
comes back has no claim on the time it was away, but for BURST_BATCHES: requests come in clusters, and without these a
model that stays far below its share would have each cluster served at half speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BURST_BATCHES = 2.0  # of its own largest ones


@dataclass(slots=True)
class Share:
    """One model's claim on the device."""

    weight: float = 1.0
    tag_s: float = 0.0


class VirtualClock:
    """How far service has come, in seconds of a model of weight 1."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def returns(self, share: Share, largest_batch_s: float) -> None:
        """A model without waiting requests got one."""
        share.tag_s = max(share.tag_s, self._now_s - BURST_BATCHES * largest_batch_s / share.weight)

    def serve(self, share: Share, device_s: float) -> None:
        """A batch of a model begins to run."""
        self._now_s = max(self._now_s, share.tag_s)
        share.tag_s += device_s / share.weight


@dataclass(frozen=True, slots=True)
class Claim:
    """A lane with waiting requests, as the decision sees it."""

    tag_s: float
    weight: float
    rank_s: float  # of its first request
    deadline_s: float  # of the same
    batch_s: float  # of the batch that it would run
    single_s: float  # of a batch of one


def order_of(claims: Sequence[Claim], begins_s: float) -> list[int]:
    """Indices of `claims`, first the one whose turn it is.

    Smallest tag first, equals by deadline. One that would miss a deadline by waiting for the first goes before it, if
    it would be next after it anyway and the first can still wait for it.
    """
    order = sorted(range(len(claims)), key=lambda index: (claims[index].tag_s, claims[index].rank_s))
    if len(order) > 1:
        urgent = _urgent(claims, order, begins_s)
        if urgent is not None:
            order.remove(urgent)
            order.insert(0, urgent)
    return order


def _urgent(claims: Sequence[Claim], order: Sequence[int], begins_s: float) -> int | None:
    first = claims[order[0]]
    behind_first_s = begins_s + first.batch_s
    for index in order[1:]:
        claim = claims[index]
        within_share = claim.tag_s <= first.tag_s + first.batch_s / first.weight
        saved = claim.deadline_s < behind_first_s + claim.single_s and begins_s + claim.single_s <= claim.deadline_s
        can_wait = begins_s + claim.batch_s + first.single_s <= first.deadline_s
        if within_share and saved and can_wait:
            return index
    return None
