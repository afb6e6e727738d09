"""Decides who makes room. Promises: pure; least recently used first, none too many, none in use or just loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from saccade.service.core import VersionKey

# A version stays for some times what its load took, so that at most a fifth of the time goes into loading.
_RESIDENCE_LOADS = 4.0
_SHORTEST_RESIDENCE_S = 1.0
_LONGEST_RESIDENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded version."""

    key: VersionKey
    held_bytes: Mapping[str, int]  # by device
    ready_s: float
    load_s: float  # its load took
    last_used_s: float
    in_flight: int = 0
    is_pinned: bool = False

    def may_leave(self, now_s: float) -> bool:
        residence_s = min(max(_SHORTEST_RESIDENCE_S, _RESIDENCE_LOADS * self.load_s), _LONGEST_RESIDENCE_S)
        return not self.is_pinned and self.in_flight == 0 and now_s - self.ready_s >= residence_s


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is missing for one more version."""

    bytes_by_device: Mapping[str, int] = field(default_factory=dict)
    models: int = 0  # so many too many would be loaded

    def is_met_by(self, chosen: Collection[Resident], residents: Sequence[Resident]) -> bool:
        """Whether there is enough room once the chosen ones are gone from all the residents."""
        has_bytes = all(
            sum(resident.held_bytes.get(device, 0) for resident in chosen) >= missing
            for device, missing in self.bytes_by_device.items()
        )
        if not has_bytes or self.models <= 0:
            return has_bytes
        left = {resident.key.model for resident in residents if resident not in chosen}
        return len({resident.key.model for resident in chosen} - left) >= self.models


def to_evict(residents: Sequence[Resident], shortage: Shortage, now_s: float) -> tuple[VersionKey, ...] | None:
    """Versions to unload, the least recently used first; None when those that may leave are not enough.

    Of those chosen none could stay.
    """
    return _chosen([resident for resident in residents if resident.may_leave(now_s)], residents, shortage)


def can_be_met(residents: Sequence[Resident], shortage: Shortage) -> bool:
    """Whether there will be room once requests in flight have ended and everyone has stayed long enough."""
    return _chosen([resident for resident in residents if not resident.is_pinned], residents, shortage) is not None


def _chosen(
    candidates: Sequence[Resident], residents: Sequence[Resident], shortage: Shortage
) -> tuple[VersionKey, ...] | None:
    chosen: list[Resident] = []
    for resident in sorted(candidates, key=lambda item: item.last_used_s):
        if shortage.is_met_by(chosen, residents):
            break
        chosen.append(resident)
    if not shortage.is_met_by(chosen, residents):
        return None
    for resident in list(reversed(chosen)):  # the most recently used of those that need not leave stays
        others = [item for item in chosen if item is not resident]
        if shortage.is_met_by(others, residents):
            chosen = others
    return tuple(resident.key for resident in chosen)
