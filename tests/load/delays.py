"""What it is worth to learn by how much answers come later than expected: pure simulation, in virtual time.

    python -m tests.load.delays

One device runs batches of up to sixteen images, and some runs take longer by a pause, as they do where other work takes
the cores. Requests with a deadline of 200 ms come at once and twice the capacity. Admission is the server's own, with
and without the learned delay (`Urgency.delay_s`); a worker drops what cannot be in time. Medians over seeds.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass
from statistics import median, quantiles

from saccade.service.api.admission_rules import Urgency, WaitBounds, excess_s
from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.predictor import new_delay
from saccade.service.api.priority import Priority
from saccade.service.ipc.messages import DONE_EXPIRED, DONE_OK, Done
from tests.load.arguments import count_from_1, seconds_above_0

_BATCH_S, _IMAGE_S, _SIZE = 0.001, 0.003, 16
_CAPACITY = _SIZE / (_BATCH_S + _SIZE * _IMAGE_S)
_DEADLINE_S, _RESERVE_S = 0.2, 0.01
_PAUSES = ((0.05, 0.02), (0.1, 0.03), (0.2, 0.03), (0.3, 0.03), (0.1, 0.08))


@dataclass(frozen=True, slots=True)
class Request:
    sent_s: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class Pauses:
    """How often a run has a pause, and how long it is on average."""

    share: float
    mean_s: float


def answered_s(pauses: Pauses, times_capacity: float, seconds: float, seed: int, *, learns: bool) -> list[float]:
    """The seconds that each answer took; requests that were refused or dropped have none."""
    draw, numbers = random.Random(seed), itertools.count()
    estimates, delay = InstanceEstimates(), new_delay()
    waiting: deque[Request] = deque()
    times_s: list[float] = []
    busy_until_s, in_flight = 0.0, 0
    events: list[tuple[float, int, list[Request] | None, float]] = [(0.0, 0, None, 0.0)]

    def end(request: Request, now_s: float, status: int, run_s: float, size: int) -> None:
        backlog_s = max(0.0, busy_until_s - now_s) + len(waiting) * _IMAGE_S
        done = Done(1, status, 0.0, run_s, size, wait_s=backlog_s, image_s=_IMAGE_S)
        estimates.answered(1, done, now_s)
        if request.expected_s:
            delay.add(now_s - request.sent_s - request.expected_s)

    while events[0][0] < seconds:
        now_s, _, batch, run_s = heapq.heappop(events)
        if batch is None:
            heapq.heappush(events, (now_s + draw.expovariate(times_capacity * _CAPACITY), next(numbers), None, 0.0))
            wait = estimates.wait(1, in_flight, now_s)
            allowed_s = _DEADLINE_S - _RESERVE_S
            urgency = Urgency(Priority.NORMAL, allowed_s, delay_s=delay.value if learns else 0.0)
            if excess_s(urgency, wait, WaitBounds()) <= 0:
                estimates.sent(1)
                in_flight += 1
                waiting.append(Request(now_s, wait.wait_s + wait.run_s))
        else:
            in_flight -= len(batch)
            times_s += [now_s - request.sent_s for request in batch]
        while waiting and waiting[0].sent_s + _DEADLINE_S - _RESERVE_S - _IMAGE_S < max(now_s, busy_until_s):
            in_flight -= 1
            end(waiting.popleft(), now_s, DONE_EXPIRED, 0.0, 0)
        if waiting and busy_until_s <= now_s:
            size = min(_SIZE, len(waiting))
            taken = [waiting.popleft() for _ in range(size)]
            took_s = (_BATCH_S + size * _IMAGE_S) * max(0.5, draw.gauss(1.0, 0.1))
            took_s += draw.expovariate(1 / pauses.mean_s) if draw.random() < pauses.share else 0.0
            busy_until_s = now_s + took_s
            heapq.heappush(events, (busy_until_s, next(numbers), taken, took_s))
        for request in batch or ():
            end(request, now_s, DONE_OK, run_s, len(batch or ()))
    return times_s


def figures(pauses: Pauses, times_capacity: float, seconds: float, seeds: int, *, learns: bool) -> tuple[float, float]:
    """Goodput over capacity, and p99 in ms."""
    found = [answered_s(pauses, times_capacity, seconds, seed, learns=learns) for seed in range(seeds)]
    goodputs = [sum(time_s <= _DEADLINE_S for time_s in times_s) / seconds / _CAPACITY for times_s in found]
    return median(goodputs), median(1000 * quantiles(times_s, n=100)[98] for times_s in found)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=seconds_above_0, default=60.0)
    parser.add_argument("--seeds", type=count_from_1, default=5)
    given = parser.parse_args()
    print("pauses                load   goodput, p99 without    with")
    for share, mean_s in _PAUSES:
        for times in (1.0, 2.0):
            without, with_ = (
                figures(Pauses(share, mean_s), times, given.seconds, given.seeds, learns=learns)
                for learns in (False, True)
            )
            shown = "        ".join(f"{goodput:.3f}  {p99_ms:4.0f} ms" for goodput, p99_ms in (without, with_))
            print(f"{share:4.0%} of {1000 * mean_s:3.0f} ms        {times:3.1f} x   {shown}", flush=True)


if __name__ == "__main__":
    main()
