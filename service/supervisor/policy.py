"""What a model's desired state means for loading: which versions are named, and which one is stable now. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from saccade.service.core import STABLE
from saccade.service.repository.serving_document import ServingDocument


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """The desired state of one model."""

    stable: int | None = None  # None: the newest accepted version
    named: frozenset[int] = frozenset()  # versions to load whatever is newer, stable among them
    grace_s: float = 0.0  # a version that was stable stays loaded for so long
    is_blocked: bool = False  # its document was refused and none ruled before, so nothing is loaded


FOLLOW = ServingPolicy()
BLOCKED = ServingPolicy(is_blocked=True)


def pinned(version: int) -> ServingPolicy:
    """The policy of a version that SACCADE_SERVE_VERSIONS names."""
    return ServingPolicy(version, frozenset({version}))


def policy_from(document: ServingDocument) -> ServingPolicy:
    return ServingPolicy(document.labels.get(STABLE), document.named, document.grace_s)


def without(
    policy: ServingPolicy, given_up: Collection[int], before: Iterable[int], present: Collection[int]
) -> ServingPolicy:
    """Returns the policy while versions are given up: the last good version rules in place of one that is held.

    `before` are stable versions from the present one back. Without any, the newest one that is older takes over, since
    nobody asked for a newer one. Where there is none, nothing changes.
    """
    held = policy.stable
    if held is None or held not in given_up:
        return policy
    older = sorted((version for version in present if version < held), reverse=True)
    good = next((each for each in (*before, *older) if each in present and each not in given_up), None)
    return policy if good is None else replace(policy, stable=good, named=policy.named - {held} | {good})


def stable_now(
    policy: ServingPolicy, before: int | None, ready: Collection[int], returning: Collection[int] = ()
) -> int | None:
    """Returns the version that answers by default; `before` is what it was until now, `ready` what can answer.

    A version that is held takes over once it is ready; until then the one before it answers, if it can, or will again:
    `returning` are those that were ready until their worker ended.
    """
    wanted = max(ready, default=None) if policy.stable is None else policy.stable
    is_gap = wanted is None or wanted not in ready
    return before if is_gap and (before in ready or before in returning) else wanted
