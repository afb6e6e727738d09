"""Decides which versions are unloaded for another: the least recently used, but none in use or just loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from saccade.service.core import VersionKey

# A version stays loaded for four times the duration of its load, so that loading takes at most a fifth of the time.
_STAY_LOADS = 4.0
_SHORTEST_STAY_S = 1.0
_LONGEST_STAY_S = 60.0


@dataclass(frozen=True, slots=True)
class CachedVersion:
    """A loaded version, with what decides whether it may be unloaded."""

    key: VersionKey
    held_bytes: Mapping[str, int]  # device memory by device
    ready_s: float
    load_s: float  # duration of its load
    last_used_s: float
    in_flight: int = 0
    is_pinned: bool = False

    def may_leave(self, now_s: float) -> bool:
        stay_s = min(max(_SHORTEST_STAY_S, _STAY_LOADS * self.load_s), _LONGEST_STAY_S)
        return not self.is_pinned and self.in_flight == 0 and now_s - self.ready_s >= stay_s


@dataclass(frozen=True, slots=True)
class Shortage:
    """What must become free for one more version."""

    bytes_by_device: Mapping[str, int] = field(default_factory=dict)
    models: int = 0  # number of models by which the limit would be exceeded

    def is_met_by(self, chosen: Collection[CachedVersion], cached: Sequence[CachedVersion]) -> bool:
        """Returns whether there is enough room once the chosen versions are unloaded."""
        has_bytes = all(
            sum(version.held_bytes.get(device, 0) for version in chosen) >= missing
            for device, missing in self.bytes_by_device.items()
        )
        if not has_bytes or self.models <= 0:
            return has_bytes
        left = {version.key.model for version in cached if version not in chosen}
        return len({version.key.model for version in chosen} - left) >= self.models


def to_evict(cached: Sequence[CachedVersion], shortage: Shortage, now_s: float) -> tuple[VersionKey, ...] | None:
    """Returns versions to unload, least recently used first; None when the versions that may leave are not enough.

    The result is minimal: without any one of the versions there would not be enough room.
    """
    return _chosen([version for version in cached if version.may_leave(now_s)], cached, shortage)


def can_be_met(cached: Sequence[CachedVersion], shortage: Shortage) -> bool:
    """Returns whether there can be room later, once requests have ended and all versions are old enough."""
    return _chosen([version for version in cached if not version.is_pinned], cached, shortage) is not None


def _chosen(
    candidates: Sequence[CachedVersion], cached: Sequence[CachedVersion], shortage: Shortage
) -> tuple[VersionKey, ...] | None:
    chosen: list[CachedVersion] = []
    for version in sorted(candidates, key=lambda item: item.last_used_s):
        if shortage.is_met_by(chosen, cached):
            break
        chosen.append(version)
    if not shortage.is_met_by(chosen, cached):
        return None
    for version in list(reversed(chosen)):  # versions that need not leave stay, the most recently used ones first
        others = [item for item in chosen if item is not version]
        if shortage.is_met_by(others, cached):
            chosen = others
    return tuple(version.key for version in chosen)
