"""What a model's desired state means for loading: which versions are named, and which one is stable now. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

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


def stable_now(policy: ServingPolicy, before: int | None, ready: Collection[int]) -> int | None:
    """Returns the version that answers by default; `before` is what it was until now, `ready` what can answer.

    A version that is held takes over once it is ready; until then the one before it answers, if it can.
    """
    wanted = max(ready, default=None) if policy.stable is None else policy.stable
    is_gap = wanted is None or wanted not in ready
    return before if is_gap and before in ready else wanted
