"""One device and its batches on simulated time, driven by the real queue; results depend on the seed alone.

Batches run one after the other, and up to `depth` are started ahead as the device loop does it. Run times come from a
table, with noise where asked; the queue knows only what it has observed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from saccade.service.worker.in_flight import InFlight, StartedRun
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel
from saccade.service.worker.scheduling.queue import RequestQueue
from tests.support.simulated_device import Request, percentile

WARM_UP_RUNS = 3  # as worker/loading.py does


@dataclass(frozen=True, slots=True)
class Device:
    """What runs take."""

    run_s: Mapping[int, float]  # by allowed size
    noise: float = 0.0  # a run takes up to this share more or less, evenly spread
    depth: int = 1  # batches in flight
    max_queue_delay_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        """Of the best size."""
        return max(size / seconds for size, seconds in self.run_s.items())


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one model: those that come by themselves, and clients that send again once they are answered."""

    arrivals_s: Sequence[float] = ()
    clients: int = 0
    think_s: tuple[float, float] = (0.0, 0.0)  # least and most between an answer and the next request
    answers: int = 2000  # the clients stop after so many
    objective_s: float = 10.0


@dataclass(slots=True)
class Served:
    """How one model's requests ended."""

    waits_s: list[float] = field(default_factory=list)
    ends_s: float = 0.0
    refused: int = 0
    rows: int = 0  # that ran, padding included
    device_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        return len(self.waits_s) / self.ends_s

    @property
    def p99_s(self) -> float:
        return percentile(self.waits_s, 99)


@contextmanager
def without_padding() -> Iterator[None]:
    """The scheduler as it would be if no batch were ever padded."""
    with ExitStack() as stack:
        for module in ("draining", "batching", "queue"):
            stack.enter_context(patch(f"saccade.service.worker.scheduling.{module}.padded_size", lambda *_: None))
        yield


def serve(device: Device, loads: Sequence[Load], seed: int = 0) -> list[Served]:
    """Runs until every request has its outcome; one result per load."""
    return _Simulation(device, loads, seed).run()


class _Simulation:
    def __init__(self, device: Device, loads: Sequence[Load], seed: int) -> None:
        self._device, self._loads = device, loads
        self._noise, self._think = random.Random(seed), random.Random(seed + 1)
        self._models = [LatencyModel() for _ in loads]
        self._served = [Served() for _ in loads]
        self._sent = [0] * len(loads)
        self._coming: list[tuple[float, int, int]] = []  # (when, number, load)
        self._in_flight: InFlight[tuple[int, Sequence[Request], int, float]] = InFlight()
        self._queue: RequestQueue[Request] = RequestQueue()
        sizes = tuple(device.run_s)
        for number, (load, model) in enumerate(zip(loads, self._models, strict=True)):
            for size in sizes * WARM_UP_RUNS:
                model.observe(size, self._run_s(size))
            self._queue.add_lane(number, BatchLimits(sizes, device.max_queue_delay_s), model, str(number))
            for at_s in load.arrivals_s:
                self._expect(number, at_s)
            for _ in range(load.clients):
                self._expect(number, self._think.uniform(0.0, max(device.run_s[1], load.think_s[1])))

    def _run_s(self, rows: int) -> float:
        noise = self._device.noise
        return self._device.run_s[rows] * (1.0 + self._noise.uniform(-noise, noise) if noise else 1.0)

    def _expect(self, number: int, at_s: float) -> None:
        heapq.heappush(self._coming, (at_s, len(self._coming) + sum(self._sent), number))

    def run(self) -> list[Served]:
        now_s, ends_s = 0.0, [0.0]  # when the started batches really end, the last one behind
        while True:
            while len(self._in_flight) and ends_s[-len(self._in_flight)] <= now_s:
                self._land(now_s)
            while self._coming and self._coming[0][0] <= now_s:
                self._send(heapq.heappop(self._coming))
            look_again_s = None
            if len(self._in_flight) < self._device.depth:
                outlook = self._in_flight.outlook(now_s)
                decision = self._queue.take(now_s, outlook.ahead if outlook else None)
                for request in decision.expired:
                    self._refuse(request, now_s)
                if decision.batch:
                    number, rows = decision.batch[0].instance_id, decision.rows
                    run_s = self._run_s(rows)
                    expected_s = self._models[number].batch_s(rows)
                    self._in_flight.add(StartedRun((number, decision.batch, rows, run_s), 0, now_s, expected_s))
                    ends_s = [*ends_s[-self._device.depth :], max(now_s, ends_s[-1]) + run_s]
                    continue
                look_again_s = decision.look_again_s
            events = [look_again_s] if look_again_s is not None else []
            events += [self._coming[0][0]] if self._coming else []
            events += [ends_s[-len(self._in_flight)]] if len(self._in_flight) else []
            if not events:
                return self._served
            now_s = max(now_s, min(events))

    def _send(self, coming: tuple[float, int, int]) -> None:
        at_s, _, number = coming
        self._sent[number] += 1
        self._queue.push(Request(number, at_s + self._loads[number].objective_s, at_s))

    def _land(self, now_s: float) -> None:
        number, batch, rows, run_s = self._in_flight.take_oldest().what
        self._models[number].observe(rows, run_s)
        served = self._served[number]
        served.rows += rows
        served.device_s += run_s
        served.ends_s = now_s
        for request in batch:
            served.waits_s.append(now_s - request.submitted_s)
            self._send_again(number, now_s)

    def _refuse(self, request: Request, now_s: float) -> None:
        self._served[request.instance_id].refused += 1
        self._send_again(request.instance_id, now_s)

    def _send_again(self, number: int, now_s: float) -> None:
        load = self._loads[number]
        if load.clients and self._sent[number] + load.clients <= load.answers:
            self._expect(number, now_s + self._think.uniform(*load.think_s))


# What is sent


def poisson(rate: float, count: int, seed: int) -> tuple[float, ...]:
    """Times of `count` requests at `rate` per second."""
    return bursts(rate, count, seed, lambda numbers: 1)


def bursts(
    rate: float, count: int, seed: int, size_of: Callable[[random.Random], int] = lambda numbers: numbers.randint(1, 40)
) -> tuple[float, ...]:
    """Times of at least `count` requests that come several at once, `rate` per second in all."""
    numbers = random.Random(seed)
    at_s = 0.0
    times: list[float] = []
    while len(times) < count:
        size = size_of(numbers)
        at_s += numbers.expovariate(1.0) * size / rate
        times += [at_s] * size
    return tuple(times)
