"""Keeps which version of each model is stable, since when, and which ones were before."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from saccade.service.core import VersionKey
from saccade.service.supervisor.breaker import PROBATION_S
from saccade.service.supervisor.policy import FOLLOW, ServingPolicy, stable_now

_KEPT_BEFORE = 64  # per model
_NONE: Mapping[str, Collection[int]] = {}


class StableVersions:
    """Only the supervisor's event loop may call it. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self.now: dict[str, int | None] = {}  # the version that answers by default
        self.grace: dict[VersionKey, float] = {}  # versions that were stable and stay loaded: when they were replaced
        self._since_s: dict[str, float] = {}  # when the present one replaced another; absent at a start or a return
        self._before: dict[str, list[int]] = {}  # earlier ones, oldest first

    def settle(
        self,
        policies: Mapping[str, ServingPolicy],
        ready: Mapping[str, Collection[int]],
        now_s: float,
        returning: Mapping[str, Collection[int]] = _NONE,
    ) -> None:
        """Notes which version of each model is stable now, given those that can answer, or will again."""
        self.grace = {
            key: since_s
            for key, since_s in self.grace.items()
            if now_s - since_s < policies.get(key.model, FOLLOW).grace_s
        }
        for model, policy in policies.items():
            before = self.now.get(model)
            now = stable_now(policy, before, ready.get(model, ()), returning.get(model, ()))
            self.now[model] = now
            if now == before or before is None:
                continue
            if policy.grace_s:
                self.grace[VersionKey(model, before)] = now_s
            earlier = self._before.setdefault(model, [])
            is_return = now is None or now in earlier
            earlier[:] = [*(version for version in earlier if version not in (before, now)), before][-_KEPT_BEFORE:]
            self._since_s.pop(model, None)
            if not is_return:
                self._since_s[model] = now_s

    def is_on_probation(self, key: VersionKey, now_s: float) -> bool:
        """Returns whether a version became stable a short while ago, for the first time."""
        since_s = self._since_s.get(key.model)
        return self.now.get(key.model) == key.version and since_s is not None and now_s - since_s <= PROBATION_S

    def before(self, model: str) -> list[int]:
        """Returns the versions that were stable earlier, the latest first."""
        return self._before.get(model, [])[::-1]
