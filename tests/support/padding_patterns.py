"""Devices and arrival patterns on which padding is judged, by the tests and for the printed table alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.simulated_batches import Device, Load, bursts, poisson, serve, without_padding
from tests.support.simulated_device import percentile

H200_S = {1: 0.00092, 8: 0.00195, 32: 0.0035, 64: 0.0055, 128: 0.0095}  # ResNet-50 fp16, batches as published
TWO_CORES_S = {1: 0.012, 2: 0.024, 4: 0.046, 8: 0.090}
FLAT_S = {1: 0.005, 2: 0.005, 4: 0.005, 8: 0.005}
DEVICES = {
    "H200": Device(H200_S),
    "H200, noisy": Device(H200_S, noise=0.2),
    "H200, two in flight": Device(H200_S, depth=2),
    "two cores, noisy": Device(TWO_CORES_S, noise=0.2),
    "flat": Device(FLAT_S),
    "flat, noisy": Device(FLAT_S, noise=0.2),
}
CLIENTS = (1, 4, 7, 8, 16, 31)
AWAY_S = ((0.0, 0.0), (0.0001, 0.0003), (0.0005, 0.0015))  # between an answer and the client's next request
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of what the device can do

Pattern = Callable[[Device, int], Load]  # of a device and a seed


def _poisson(rate: float) -> Pattern:
    return lambda device, seed: Load(poisson(rate * device.images_per_s, 3000, seed))


def _bursts(rate: float) -> Pattern:
    return lambda device, seed: Load(bursts(rate * device.images_per_s, 15_000, seed))


def _burst_of(size: int) -> Pattern:
    return lambda device, seed: Load(tuple(float(number) for number in range(5) for _ in range(size)))


def _closed(clients: int, away_s: tuple[float, float]) -> Pattern:
    return lambda device, seed: Load(clients=clients, think_s=away_s, answers=1500)


def closed_name(clients: int, away_s: tuple[float, float]) -> str:
    return f"{clients} clients, {1000 * sum(away_s) / 2:.1f} ms away"


RANDOM_PATTERNS = {f"Poisson at {rate}": _poisson(rate) for rate in RATES} | {
    f"bursts at {rate}": _bursts(rate) for rate in (0.3, 0.7)
}
CLOSED_PATTERNS = {closed_name(count, away_s): _closed(count, away_s) for count in CLIENTS for away_s in AWAY_S}
BURST_PATTERNS = {f"burst of {size}": _burst_of(size) for size in range(1, 41)}  # each finds an idle device
PATTERNS = RANDOM_PATTERNS | CLOSED_PATTERNS | BURST_PATTERNS


@dataclass(frozen=True, slots=True)
class Compared:
    """Answers per second and p99 without padding and with it."""

    before_per_s: float
    after_per_s: float
    before_p99_s: float
    after_p99_s: float

    @property
    def throughput(self) -> float:
        """With padding, as a share of that without."""
        return self.after_per_s / self.before_per_s

    @property
    def p99(self) -> float:
        """With padding, as a share of that without."""
        return self.after_p99_s / self.before_p99_s


def compare(device: Device, pattern: Pattern, seeds: int = 2) -> Compared:
    """Over all seeds together. The p99 of bursts needs some: of 15,000 requests it moves by several percent."""
    with without_padding():
        before = [serve(device, [pattern(device, seed)], seed)[0] for seed in range(seeds)]
    after = [serve(device, [pattern(device, seed)], seed)[0] for seed in range(seeds)]
    p99_s = [percentile([wait_s for run in runs for wait_s in run.waits_s], 99) for runs in (before, after)]
    return Compared(
        sum(run.images_per_s for run in before) / seeds, sum(run.images_per_s for run in after) / seeds, *p99_s
    )
