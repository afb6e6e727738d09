"""Which rung of its ladder answers a request. Promises: gated variants only; a pinned or forbidden one is respected.

Every API process decides for itself, by the waits it sees. Requests with objectives of the same order share a state,
so that one client with a tight deadline does not move the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from saccade.service.api.brown_out import RungState, rung_for
from saccade.service.api.catalog import Target
from saccade.service.ipc.messages import InstanceStatus
from saccade.service.vision.parameters import Parameters


class Waits(Protocol):
    """What is known of the devices; `DeviceLines` knows it."""

    def expected_wait_s(self, instances: Sequence[InstanceStatus], image_count: int) -> float:
        """Seconds until one of these could have answered; infinite when none has slots free."""


@dataclass(frozen=True, slots=True)
class LadderRule:
    is_on: bool
    objective_s: float | None  # None: what requests name themselves


class RungChooser:
    """The ladders of all models in one API process. Belongs to its event loop."""

    def __init__(
        self,
        rule: LadderRule,
        waits: Waits,
        show_rung: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`show_rung` gets a model and the lowest rung that answers any of its requests, when that changed."""
        self._rule = rule
        self._waits = waits
        self._show_rung = show_rung
        self._clock = clock
        self._states: dict[tuple[str, int], RungState] = {}

    @property
    def is_on(self) -> bool:
        return self._rule.is_on

    def instances_for(self, target: Target, parameters: Parameters, image_count: int) -> tuple[InstanceStatus, ...]:
        """Those of the variant that answers. Raises BadParameter for a pinned one that is not loaded."""
        if parameters.variant is not None or not self._rule.is_on:
            return target.instances_of(parameters.variant)
        rungs = sorted({instance.rung for instance in target.instances})
        place = 0
        objective_s = self._objective_s(parameters)
        if parameters.allow_cheaper and objective_s is not None and len(rungs) > 1:
            place = self._place(target, rungs, objective_s, image_count)
        return _on_rung(target, rungs[place])

    def _objective_s(self, parameters: Parameters) -> float | None:
        named_s = parameters.deadline_ms / 1000 if parameters.names_deadline else math.inf
        objective_s = min(named_s, self._rule.objective_s or math.inf)
        return objective_s if 0 < objective_s < math.inf else None

    def _place(self, target: Target, rungs: list[int], objective_s: float, image_count: int) -> int:
        model = target.key.model
        key = (model, math.frexp(objective_s)[1])
        state = self._states.get(key, RungState())
        lowest = len(rungs) - 1
        present = _on_rung(target, rungs[min(state.rung, lowest)])
        wait_s = self._waits.expected_wait_s(present, image_count)
        after = rung_for(wait_s, objective_s, state, self._clock(), lowest)
        self._states[key] = after
        if after.rung != state.rung:
            self._show_rung(model, max(item.rung for (name, _), item in self._states.items() if name == model))
        return after.rung


def _on_rung(target: Target, rung: int) -> tuple[InstanceStatus, ...]:
    return tuple(instance for instance in target.instances if instance.rung == rung)
