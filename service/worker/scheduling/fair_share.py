"""Decides which model's batch runs next on a device: models share device time by weight.

The method is start-time fair queueing (Goyal, Vin, Cheng: Start-time Fair Queuing, SIGCOMM 1996) over device seconds:
every model has a tag, the time that its past batches took divided by its weight, and the smallest tag goes first. A
model that was idle gets no time for that, except for BURST_BATCHES: requests arrive in clusters, and without them a
model that stays far below its share would have each cluster served at half speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BURST_BATCHES = 2.0  # largest batches of its own that a model may run before the others after it was idle


@dataclass(slots=True)
class Share:
    """One model's share of the device: its weight, and the tag that counts the time it has used."""

    weight: float = 1.0
    tag_s: float = 0.0


class VirtualClock:
    """The virtual time of the device, in seconds of a model of weight 1."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def returns(self, share: Share, largest_batch_s: float) -> None:
        """Updates the tag of a model that had no waiting requests and now has one."""
        share.tag_s = max(share.tag_s, self._now_s - BURST_BATCHES * largest_batch_s / share.weight)

    def serve(self, share: Share, device_s: float) -> None:
        """Counts a batch of a model that begins to run."""
        self._now_s = max(self._now_s, share.tag_s)
        share.tag_s += device_s / share.weight


@dataclass(frozen=True, slots=True)
class Claim:
    """The properties of one instance's waiting requests that the decision reads."""

    tag_s: float
    weight: float
    rank_s: float  # rank of its first request
    deadline_s: float  # deadline of its first request
    batch_s: float  # expected seconds of the largest batch that they fill
    run_s: float  # expected seconds of the run that they would have, which may be shorter
    single_s: float  # expected seconds of a batch of one


def order_of(claims: Sequence[Claim], begins_s: float) -> list[int]:
    """Returns the indices of `claims` in the order in which they may run.

    The smallest tag goes first, equal tags by deadline. A claim that would miss its deadline behind the first goes
    before it, if its share would let it run next anyway and the first can still meet its own deadline.
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
    behind_first_s = begins_s + first.run_s
    for index in order[1:]:
        claim = claims[index]
        within_share = claim.tag_s <= first.tag_s + first.batch_s / first.weight
        saved = claim.deadline_s < behind_first_s + claim.single_s and begins_s + claim.single_s <= claim.deadline_s
        can_wait = begins_s + claim.run_s + first.single_s <= first.deadline_s
        if within_share and saved and can_wait:
            return index
    return None
