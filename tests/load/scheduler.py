"""What the scheduler's decisions cost and how fair they are. Promises: no server, no clock but for the cost.

    python -m tests.load.scheduler

First table: microseconds per request for being queued, decided on and taken out, one in ten cancelled, at various
depths; and the same for a queue that sorts all that waits at every decision, as this one did before. Second table:
simulated time, two models on one device, one of them sent ten times what it can have. Third table: simulated time,
answers per second and p99 without padding and with it, by device and by what is sent; and the worst of each device.
Fourth table: simulated time, tiles of 120 ms and a request of 2 ms each second, which allows 250 ms, on one device;
with full runs and with short ones the share of small requests that is answered, tiles per second and their p99.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass

from saccade.service.worker.scheduling.batching import BatchLimits, next_batch
from saccade.service.worker.scheduling.latency_model import LatencyModel
from saccade.service.worker.scheduling.queue import RequestQueue
from tests.support import sharing_patterns
from tests.support.padding_patterns import BURST_PATTERNS, DEVICES, PATTERNS, compare
from tests.support.simulated_batches import Device
from tests.support.simulated_device import Flood, SimulatedDevice, percentile

DEPTHS = (10, 100, 1_000, 10_000)
SIZES = (1, 2, 4, 8, 16)
FAR_S = 1e6  # deadlines beyond every estimate: all are run


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    instance_id: int
    deadline_s: float
    submitted_s: float = 0.0

    @property
    def rank_s(self) -> float:
        return self.deadline_s


def latency() -> LatencyModel:
    model = LatencyModel()
    for size in SIZES:
        model.observe(size, 0.002 + 0.001 * size)
    return model


def cost_now_us(depth: int, rounds: int) -> float:
    """Microseconds per request while `depth` others wait."""
    queue: RequestQueue[Request] = RequestQueue()
    queue.add_lane(1, BatchLimits(SIZES, 0.0), latency())
    numbers = random.Random(depth)
    for _ in range(depth):
        queue.push(Request(1, FAR_S + numbers.random()))
    requests = [Request(1, FAR_S + numbers.random()) for _ in range(SIZES[-1] * rounds)]
    coming = iter(requests)
    cancelled = 0
    start_s = time.perf_counter()
    for number in range(rounds):
        fresh = [next(coming) for _ in range(SIZES[-1])]
        for request in fresh:
            if not queue.is_hopeless(request, float(number)):
                queue.push(request)
        cancelled += queue.remove(fresh[number % len(fresh)])
        queue.take(float(number))
    return 1e6 * (time.perf_counter() - start_s) / len(requests)


def cost_sorting_us(depth: int, rounds: int) -> float:
    """The same with all that waits filtered and sorted by every decision."""
    numbers = random.Random(depth)
    waiting = [Request(1, FAR_S + numbers.random()) for _ in range(depth)]
    limits, table = BatchLimits(SIZES, 0.0), latency()
    requests = [Request(1, FAR_S + numbers.random()) for _ in range(SIZES[-1] * rounds)]
    coming = iter(requests)
    start_s = time.perf_counter()
    for number in range(rounds):
        fresh = [next(coming) for _ in range(SIZES[-1])]
        waiting.extend(fresh)
        gone = fresh[number % len(fresh)]
        waiting = [request for request in waiting if request is not gone]
        decision = next_batch(waiting, float(number), limits, table)
        ids = {id(request) for request in decision.batch}
        waiting = [request for request in waiting if id(request) not in ids]
    return 1e6 * (time.perf_counter() - start_s) / len(requests)


def main() -> None:
    argparse.ArgumentParser(prog="python -m tests.load.scheduler", description=__doc__).parse_args()
    print("microseconds per request    waiting      now   sorting all")
    for depth in DEPTHS:
        now_us = min(cost_now_us(depth, 300) for _ in range(3))
        sorting_us = min(cost_sorting_us(depth, 20) for _ in range(3))
        print(f"{depth:34,} {now_us:8.1f} {sorting_us:13.1f}")
    print("\nanswers of the model that is not flooded, milliseconds (simulated)")
    alone = SimulatedDevice().run(Flood(times_capacity=0.0))
    flooded = SimulatedDevice().run(Flood(times_capacity=10.0))
    for name, run in (("alone", alone), ("other at 10x", flooded)):
        quiet_ms = [1000 * seconds for seconds in run.answered_s["quiet"]]
        refused = run.refused["quiet"]
        print(
            f"  {name:14} p50 {percentile(quiet_ms, 50):6.1f}  p99 {percentile(quiet_ms, 99):6.1f}  refused {refused}"
        )
    ratio = percentile(flooded.answered_s["quiet"], 99) / percentile(alone.answered_s["quiet"], 99)
    print(f"  p99 rises {ratio:.2f} times; the flooded model still gets {flooded.images_per_s('flooded'):.0f} images/s")
    print("\npadding (simulated): answers/s without and with, and their p99 in milliseconds")
    for device in DEVICES:
        print_padding(device)
    print("\nshort runs beside another model (simulated): its answers, tiles/s and their p99 in seconds")
    for name, shared in {**sharing_patterns.DEVICES, "uncertain": sharing_patterns.UNCERTAIN}.items():
        print_sharing(name, shared)


def print_padding(name: str) -> None:
    """Every pattern that padding changes, but for single bursts, and the worst that it does to any."""
    compared = {pattern: compare(DEVICES[name], make, 4) for pattern, make in PATTERNS.items()}
    for pattern, found in compared.items():
        if pattern not in BURST_PATTERNS and (found.throughput, found.p99) != (1.0, 1.0):
            print(
                f"  {name:20} {pattern:24} {found.before_per_s:8.0f} {found.after_per_s:8.0f} {found.throughput:6.2f}x"
                f" {1000 * found.before_p99_s:8.2f} {1000 * found.after_p99_s:8.2f} {found.p99:6.2f}x"
            )
    slowest = min(found.throughput for found in compared.values())
    print(f"  {name:20} worst: {slowest:.3f}x answers, {max(found.p99 for found in compared.values()):.3f}x p99")


def print_sharing(name: str, device: Device) -> None:
    """Every pattern that short runs change, and the worst that they do to any."""
    rates, p99s = [1.0], [1.0]
    for pattern, make in sharing_patterns.PATTERNS.items():
        before, after = sharing_patterns.compare_shared(device, make, 3)
        rates.append(after.heavy_per_s / before.heavy_per_s)
        p99s.append(after.heavy_p99_s / before.heavy_p99_s)
        if before != after:
            print(
                f"  {name:34} {pattern:16} {before.light_answered:6.1%} {after.light_answered:6.1%}"
                f" {before.heavy_per_s:8.2f} {after.heavy_per_s:8.2f} {rates[-1]:6.3f}x"
                f" {before.heavy_p99_s:6.2f} {after.heavy_p99_s:6.2f} {p99s[-1]:6.3f}x"
            )
    print(f"  {name:34} worst: {min(rates):.3f}x tiles, {max(p99s):.3f}x p99")


if __name__ == "__main__":
    main()
