"""A device on simulated time, driven by the real queue; deterministic, and every request has one outcome."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel
from saccade.service.worker.scheduling.queue import RequestQueue

SIZES = (1, 2, 4, 8)
RUN_S = {1: 0.005, 2: 0.007, 4: 0.011, 8: 0.019}  # of both models
MODELS = {"quiet": 1, "flooded": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    instance_id: int
    deadline_s: float
    submitted_s: float
    offset_s: float = 0.0

    @property
    def rank_s(self) -> float:
        return self.deadline_s + self.offset_s


@dataclass(frozen=True, slots=True)
class Flood:
    """What is sent. Capacity is what the device can do with full batches of one model."""

    times_capacity: float  # to the flooded model
    quiet_share: float = 0.2  # of capacity, to the other
    objective_s: float = 0.2
    quiet_objective_s: float = 0.2
    seconds: float = 60.0


@dataclass(slots=True)
class Ran:
    """How it ended."""

    seconds: float
    answered_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)

    def images_per_s(self, model: str) -> float:
        return len(self.answered_s[model]) / self.seconds


class SimulatedDevice:
    """Two models, batches one after the other."""

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        self._queue: RequestQueue[Request] = RequestQueue()
        for model, instance_id in MODELS.items():
            latency = LatencyModel()
            for size, seconds in RUN_S.items():
                latency.observe(size, seconds)
            self._queue.add_lane(instance_id, BatchLimits(SIZES, 0.0), latency, model, (weights or {}).get(model, 1.0))

    def run(self, flood: Flood) -> Ran:
        capacity = SIZES[-1] / RUN_S[SIZES[-1]]
        coming = heapq.merge(
            _arrivals(MODELS["quiet"], capacity * flood.quiet_share, flood.quiet_objective_s, flood.seconds, 1),
            _arrivals(MODELS["flooded"], capacity * flood.times_capacity, flood.objective_s, flood.seconds, 2),
            key=lambda request: request.submitted_s,
        )
        return self.drive(list(coming), flood.seconds)

    def drive(self, coming: Sequence[Request], seconds: float) -> Ran:
        """Serves `coming`, which is in the order of arrival."""
        names = {number: model for model, number in MODELS.items()}
        ran = Ran(seconds)
        now_s, index = 0.0, 0
        while index < len(coming) or len(self._queue):
            free_s = now_s
            decision = self._queue.take(now_s)
            for request in decision.expired:
                ran.refused[names[request.instance_id]] += 1
            if decision.batch:
                free_s = now_s + RUN_S[decision.rows]
            elif decision.look_again_s is not None:
                free_s = decision.look_again_s
            elif index < len(coming):
                free_s = max(now_s, coming[index].submitted_s)
            while index < len(coming) and coming[index].submitted_s <= free_s:
                request, index = coming[index], index + 1
                if decision.batch and self._queue.is_hopeless(request, free_s):
                    ran.refused[names[request.instance_id]] += 1
                else:
                    self._queue.push(request)
            now_s = free_s
            for request in decision.batch:
                model = names[request.instance_id]
                ran.answered_s[model].append(now_s - request.submitted_s)
                ran.late[model] += now_s > request.deadline_s + 1e-9
        return ran


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _arrivals(instance_id: int, rate: float, objective_s: float, seconds: float, seed: int) -> Iterator[Request]:
    """Poisson."""
    numbers = random.Random(seed)
    at_s = 0.0
    while rate > 0 and (at_s := at_s + numbers.expovariate(rate)) < seconds:
        yield Request(instance_id, at_s + objective_s, at_s)
