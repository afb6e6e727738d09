"""One device and its batches on simulated time, driven by the real queue; results depend on the seed alone.

Batches run one after the other, and up to `depth` are started ahead as the device loop does it. Run times come from a
table, with noise where asked; the queue knows only what it has observed.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from saccade.service.api.admission_rules import Urgency, WaitBounds, excess_s
from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.ipc.messages import DONE_EXPIRED, DONE_OK, Done
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
    earlier_runs: int = WARM_UP_RUNS  # of each size

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
    run_s: Mapping[int, float] | None = None  # by allowed size; None: as the device says
    has_door: bool = False  # requests come through an HTTP process, which refuses by the waits that it was told


@dataclass(slots=True)
class Served:
    """How one model's requests ended."""

    waits_s: list[float] = field(default_factory=list)
    ends_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)  # by who refused: "door", "line" or "device"
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


@contextmanager
def with_full_runs() -> Iterator[None]:
    """The scheduler as it would be if no run were cut for the sake of other models."""
    with ExitStack() as stack:
        for module in ("batching", "queue"):
            stack.enter_context(
                patch(f"saccade.service.worker.scheduling.{module}.run_rows", lambda latency, rows, sizes: rows)
            )
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
        self._estimates = InstanceEstimates()  # of the HTTP process
        self._answers: list[tuple[int, int, float, int]] = []  # of this moment: (load, status, seconds, batch size)
        for number, (load, model) in enumerate(zip(loads, self._models, strict=True)):
            sizes = tuple(self._table(number))
            for size in sizes * device.earlier_runs:
                model.observe(size, self._run_s(number, size))
            self._queue.add_lane(number, BatchLimits(sizes, device.max_queue_delay_s), model, str(number))
            for at_s in load.arrivals_s:
                self._expect(number, at_s)
            for _ in range(load.clients):
                self._expect(number, self._think.uniform(0.0, max(self._table(number)[1], load.think_s[1])))

    def _table(self, number: int) -> Mapping[int, float]:
        return self._loads[number].run_s or self._device.run_s

    def _run_s(self, number: int, rows: int) -> float:
        noise = self._device.noise
        return self._table(number)[rows] * (1.0 + self._noise.uniform(-noise, noise) if noise else 1.0)

    def _expect(self, number: int, at_s: float) -> None:
        heapq.heappush(self._coming, (at_s, len(self._coming) + sum(self._sent), number))

    def run(self) -> list[Served]:
        now_s, ends_s = 0.0, [0.0]  # when the started batches really end, the last one behind
        while True:
            while len(self._in_flight) and ends_s[-len(self._in_flight)] <= now_s:
                self._land(now_s)
            while self._coming and self._coming[0][0] <= now_s:
                self._send(heapq.heappop(self._coming), ends_s[-1] if len(self._in_flight) else 0.0)
            look_again_s = None
            if len(self._in_flight) < self._device.depth:
                outlook = self._in_flight.outlook(now_s)
                decision = self._queue.take(now_s, outlook.ahead if outlook else None)
                for request in decision.expired:
                    self._refuse(request, now_s, "device")
                if decision.batch:
                    number, rows = decision.batch[0].instance_id, decision.rows
                    run_s = self._run_s(number, rows)
                    expected_s = self._models[number].batch_s(rows)
                    self._in_flight.add(StartedRun((number, decision.batch, rows, run_s), 0, now_s, expected_s))
                    ends_s = [*ends_s[-self._device.depth :], max(now_s, ends_s[-1]) + run_s]
                    continue
                look_again_s = decision.look_again_s
            self._tell(now_s)
            events = [look_again_s] if look_again_s is not None else []
            events += [self._coming[0][0]] if self._coming else []
            events += [ends_s[-len(self._in_flight)]] if len(self._in_flight) else []
            if not events:
                return self._served
            now_s = max(now_s, min(events))

    def _send(self, coming: tuple[float, int, int], free_s: float) -> None:
        """The HTTP process and then the worker refuse what would be late; the device is free at `free_s`."""
        at_s, _, number = coming
        load = self._loads[number]
        self._sent[number] += 1
        request = Request(number, at_s + load.objective_s, at_s)
        if load.has_door:
            # Of all errors that admission may learn of, it is given the largest that it can keep.
            urgency = Urgency(allowed_s=load.objective_s, delay_s=load.objective_s)
            if excess_s(urgency, self._estimates.wait(number, 0, at_s), WaitBounds()) > 0:
                self._refuse(request, at_s, "door")
                return
        self._estimates.sent(number)
        if free_s and self._queue.is_hopeless(request, max(at_s, free_s)):
            self._answers.append((number, DONE_EXPIRED, 0.0, 0))
            self._refuse(request, at_s, "line")
        else:
            self._queue.push(request)

    def _tell(self, now_s: float) -> None:
        """The HTTP process gets the answers of this moment, once the device has its next run."""
        if not self._answers:
            return
        outlook = self._in_flight.outlook(now_s)
        backlogs = dict(self._queue.backlogs(outlook.ahead.ends_s - now_s if outlook else 0.0))
        for number, status, run_s, batch_size in self._answers:
            wait = backlogs[number]
            done = Done(1, status, 0.0, run_s, batch_size, wait_s=wait.wait_s, image_s=wait.image_s)
            self._estimates.answered(number, done, now_s)
        self._answers = []

    def _land(self, now_s: float) -> None:
        number, batch, rows, run_s = self._in_flight.take_oldest().what
        self._models[number].observe(rows, run_s)
        served = self._served[number]
        served.rows += rows
        served.device_s += run_s
        served.ends_s = now_s
        for request in batch:
            served.waits_s.append(now_s - request.submitted_s)
            self._answers.append((number, DONE_OK, run_s, len(batch)))
            self._send_again(number, now_s)

    def _refuse(self, request: Request, now_s: float, by: str) -> None:
        if by == "device":
            self._answers.append((request.instance_id, DONE_EXPIRED, 0.0, 0))
        self._served[request.instance_id].refused[by] += 1
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
