"""Decides when a cheaper variant of the ladder answers; `supervisor/ladder.py` decides which variants a ladder has.

Every API process decides for itself, by the waits that it sees. It steps down to a cheaper variant early and back up
late, so that it does not swing between two variants. A step up is a trial, because only the load itself shows whether
the better variant can carry it; after a trial that failed, the next one is delayed twice as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from saccade.service.api.asking import giving
from saccade.service.api.catalog import ServingTarget
from saccade.service.ipc.messages import InstanceStatus
from saccade.service.vision.parameters import Parameters

# A wait of this share of the objective causes a step down; the rest of the time is for decoding and rendering, and for
# what the estimate does not see.
_DOWN_SHARE = 0.5
_CALM_SHARE = 0.15  # waits up to this share of the objective count as calm
_CALM_OBJECTIVES = 5.0  # a step up needs calm for this many objectives, and for at least _CALM_S
_CALM_S = 1.0
_LONGEST_CALM_S = 30.0


@dataclass(frozen=True, slots=True)
class FallbackState:
    """The level of the ladder that answers requests, and since when; level 0 is the best variant."""

    level: int = 0
    stepped_s: float = -math.inf
    was_step_up: bool = False
    calm_from_s: float | None = None  # every estimate since this time was calm
    seen_s: float = -math.inf  # time of the last decision
    calm_needed_s: float = 0.0  # seconds of calm before the next step up


def next_state(
    estimated_wait_s: float, objective_s: float, state: FallbackState, now_s: float, lowest_level: int
) -> FallbackState:
    """Returns the state that decides the variant of the next request.

    - It goes down one level when the wait takes half the objective. Requests that wait at that moment were sent to the
      level above, so the next step down comes one objective later at the earliest.
    - It goes up one level after `calm_needed_s` seconds in which no wait took more than 15 % of the objective. A time
      without requests counts as calm.
    """
    usual_s = max(_CALM_S, _CALM_OBJECTIVES * objective_s)
    calm_needed_s = max(state.calm_needed_s, usual_s)
    is_pressed = estimated_wait_s >= _DOWN_SHARE * objective_s
    is_calm = estimated_wait_s <= _CALM_SHARE * objective_s
    if now_s - state.seen_s >= calm_needed_s:
        return FallbackState(min(state.level, lowest_level) if is_pressed else 0, seen_s=now_s)
    calm_from_s = (now_s if state.calm_from_s is None else state.calm_from_s) if is_calm else None
    seen = replace(state, level=min(state.level, lowest_level), seen_s=now_s, calm_from_s=calm_from_s)
    stood_s = now_s - state.stepped_s
    if is_pressed and seen.level < lowest_level and (state.was_step_up or stood_s >= objective_s):
        has_failed = state.was_step_up and stood_s < 2 * calm_needed_s
        longer_s = min(2 * calm_needed_s, _LONGEST_CALM_S) if has_failed else usual_s
        return FallbackState(seen.level + 1, now_s, seen_s=now_s, calm_needed_s=longer_s)
    if seen.level > 0 and calm_from_s is not None and now_s - max(calm_from_s, state.stepped_s) >= calm_needed_s:
        return FallbackState(seen.level - 1, now_s, was_step_up=True, seen_s=now_s, calm_needed_s=calm_needed_s)
    return seen


@dataclass(frozen=True, slots=True)
class FallbackRule:
    is_on: bool
    objective_s: float | None  # of models without one of their own; None: a request's own deadline is its objective


class Fallback:
    """The ladders of all models in one API process; only the event loop of that process may call it.

    Requests share a state when their objectives differ by less than a factor of two, so that a client with a tight
    deadline does not change the variant of the others.
    """

    def __init__(
        self,
        rule: FallbackRule,
        expected_wait_s: Callable[[Sequence[InstanceStatus], int], float],
        show_level: Callable[[str, int], None] = lambda model, level: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expected_wait_s` estimates the seconds until instances could answer a number of images, as `Admission` does.

        `show_level` is called with a model and the lowest level that answers any of its requests, at first and after
        changes.
        """
        self._rule = rule
        self._expected_wait_s = expected_wait_s
        self._show_level = show_level
        self._clock = clock
        self._states: dict[tuple[str, int], FallbackState] = {}

    @property
    def is_on(self) -> bool:
        return self._rule.is_on

    def instances_for(
        self, target: ServingTarget, parameters: Parameters, image_count: int
    ) -> tuple[InstanceStatus, ...]:
        """Returns the instances of the variant that answers.

        Raises BadParameter when the request names a variant that is not loaded, or asks for what none computes.
        """
        if parameters.asked:
            target = giving(target, parameters.asked, parameters.variant, allow_cheaper=parameters.allow_cheaper)
        if parameters.variant is not None or not self._rule.is_on:
            return target.instances_of(parameters.variant)
        ladder = sorted({instance.ladder_level for instance in target.instances})
        level = 0
        objective_s = self._objective_s(target, parameters)
        if parameters.allow_cheaper and objective_s is not None and len(ladder) > 1:
            level = self._level(target, ladder, objective_s, image_count)
        return _at_level(target, ladder[level])

    def _objective_s(self, target: ServingTarget, parameters: Parameters) -> float | None:
        named_s = parameters.deadline_ms / 1000 if parameters.names_deadline else math.inf
        objective_s = min(named_s, target.objective_s or self._rule.objective_s or math.inf)
        return objective_s if 0 < objective_s < math.inf else None

    def _level(self, target: ServingTarget, ladder: list[int], objective_s: float, image_count: int) -> int:
        model = target.key.model
        key = (model, math.frexp(objective_s)[1])
        is_known, state = key in self._states, self._states.get(key, FallbackState())
        lowest = len(ladder) - 1
        present = _at_level(target, ladder[min(state.level, lowest)])
        wait_s = self._expected_wait_s(present, image_count)
        after = next_state(wait_s, objective_s, state, self._clock(), lowest)
        self._states[key] = after
        if after.level != state.level or not is_known:
            self._show_level(model, max(item.level for (name, _), item in self._states.items() if name == model))
        return after.level


def _at_level(target: ServingTarget, level: int) -> tuple[InstanceStatus, ...]:
    return tuple(instance for instance in target.instances if instance.ladder_level == level)
