"""Decides which rung of a ladder answers. Promises: pure; steps down in time, back up late, never to and fro.

A step up is a trial: only with the load on the better rung shows whether it can carry it. So every trial that does not
last makes the next one wait twice as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_ENTER_SHARE = 0.5  # of the objective: the other half is for decoding, the answer, and what the estimate does not see
_LEAVE_SHARE = 0.15
_PATIENCE_OBJECTIVES = 5.0  # of calm before a step up; at least _PATIENCE_S
_PATIENCE_S = 1.0
_LONGEST_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class RungState:
    """Where the ladder stands; 0 is the best rung."""

    rung: int = 0
    stepped_s: float = -math.inf
    was_step_up: bool = False
    calm_from_s: float | None = None  # since then every estimate left plenty of time
    seen_s: float = -math.inf  # the last decision
    patience_s: float = 0.0  # calm that the next step up asks for


def rung_for(
    estimated_wait_s: float, objective_s: float, state: RungState, now_s: float, lowest_rung: int
) -> RungState:
    """The state to answer the next request by.

    - Down one rung when the wait takes half the objective. What waits then was sent to the rung above, so the next step
      down comes an objective later at the earliest.
    - Up one rung after `patience_s` in which no wait took more than a seventh of it. Silence is calm.
    """
    usual_s = max(_PATIENCE_S, _PATIENCE_OBJECTIVES * objective_s)
    patience_s = max(state.patience_s, usual_s)
    is_pressed = estimated_wait_s >= _ENTER_SHARE * objective_s
    is_calm = estimated_wait_s <= _LEAVE_SHARE * objective_s
    if now_s - state.seen_s >= patience_s:
        return RungState(min(state.rung, lowest_rung) if is_pressed else 0, seen_s=now_s)
    calm_from_s = (now_s if state.calm_from_s is None else state.calm_from_s) if is_calm else None
    seen = replace(state, rung=min(state.rung, lowest_rung), seen_s=now_s, calm_from_s=calm_from_s)
    stood_s = now_s - state.stepped_s
    if is_pressed and seen.rung < lowest_rung and (state.was_step_up or stood_s >= objective_s):
        has_failed = state.was_step_up and stood_s < 2 * patience_s
        longer_s = min(2 * patience_s, _LONGEST_PATIENCE_S) if has_failed else usual_s
        return RungState(seen.rung + 1, now_s, seen_s=now_s, patience_s=longer_s)
    if seen.rung > 0 and calm_from_s is not None and now_s - max(calm_from_s, state.stepped_s) >= patience_s:
        return RungState(seen.rung - 1, now_s, was_step_up=True, seen_s=now_s, patience_s=patience_s)
    return seen
