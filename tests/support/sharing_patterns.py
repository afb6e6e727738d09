"""A model of long runs and a light one on one device: what shorter runs give the one and cost the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.support.simulated_batches import Device, Load, Served, bursts, poisson, serve, with_full_runs
from tests.support.simulated_device import percentile

ROW_S = 0.12  # of a tile of the heavy model
LIGHT_S = {1: 0.002, 2: 0.003, 4: 0.005, 8: 0.009, 16: 0.017}
LIGHT_DEADLINE_S = 0.25
LINEAR_S = {size: ROW_S * size for size in (1, 2, 4, 8, 16)}


def _with_fixed_cost(share: float) -> Mapping[int, float]:
    """Every run costs this share of a row beside its rows."""
    return {size: ROW_S * (size + share) for size in LINEAR_S}


def _device(run_s: Mapping[int, float], noise: float = 0.0, depth: int = 1) -> Device:
    """One that has run for a while: after a warm-up alone, some full runs are needed to know noisy ones."""
    return Device(run_s, noise, depth, earlier_runs=15)


DEVICES = {
    "rows of one length": _device(LINEAR_S),
    "rows of one length, noisy": _device(LINEAR_S, noise=0.2),
    "rows of one length, two in flight": _device(LINEAR_S, depth=2),
    "1.5 % of a row per run": _device(_with_fixed_cost(0.015)),
    "5 % of a row per run": _device(_with_fixed_cost(0.05)),
    "30 % of a row per run, noisy": _device(_with_fixed_cost(0.3), noise=0.05),
    "slower in batches": _device({1: 0.12, 2: 0.25, 4: 0.52, 8: 1.1, 16: 2.4}),
    "two cores": _device({1: 0.12, 2: 0.24, 4: 0.46, 8: 0.9}),
    "GPU, noisy": _device({1: 0.018, 8: 0.039, 32: 0.07, 64: 0.11, 128: 0.19}, noise=0.1),
}
# Its runs vary by as much as a full one gains per row, so which of them is taken changes.
UNCERTAIN = _device(_with_fixed_cost(0.05), noise=0.05)
LIGHT_PER_S = 1.0
_IMAGES = 600

Pattern = Callable[[Device, int], Load]  # of a device and a seed


def _poisson(rate: float) -> Pattern:
    return lambda device, seed: Load(poisson(rate * device.images_per_s, _IMAGES, seed), objective_s=1e3)


def _pictures(rate: float) -> Pattern:
    """Of eight to sixteen tiles."""
    return lambda device, seed: Load(
        bursts(rate * device.images_per_s, _IMAGES, seed, lambda numbers: numbers.randint(8, 16)), objective_s=1e3
    )


def _clients(clients: int) -> Pattern:
    return lambda device, seed: Load(clients=clients, answers=_IMAGES, objective_s=1e3)


PATTERNS = (
    {f"Poisson at {rate}": _poisson(rate) for rate in (0.3, 0.6, 0.9)}
    | {f"pictures at {rate}": _pictures(rate) for rate in (0.3, 0.6, 0.9)}
    | {f"{clients} clients": _clients(clients) for clients in (2, 7, 16, 31)}
)


@dataclass(frozen=True, slots=True)
class Shared:
    """How both models fared."""

    heavy_per_s: float
    heavy_p99_s: float
    light_answered: float  # as a share of its requests


def _shared(device: Device, pattern: Pattern, seeds: int) -> Shared:
    runs: list[list[Served]] = []
    for seed in range(seeds):
        heavy = pattern(device, seed)
        seconds = _IMAGES / device.images_per_s
        times = poisson(LIGHT_PER_S, int(seconds * LIGHT_PER_S) + 1, seed + 100)
        light = Load(times, objective_s=LIGHT_DEADLINE_S, run_s=LIGHT_S, has_door=True)
        runs.append(serve(device, [heavy, light], seed))
    waits_s = [wait_s for heavy, _ in runs for wait_s in heavy.waits_s]
    answered = sum(len(light.waits_s) for _, light in runs)
    refused = sum(light.refused.total() for _, light in runs)
    return Shared(
        sum(heavy.images_per_s for heavy, _ in runs) / seeds, percentile(waits_s, 99), answered / (answered + refused)
    )


def compare_shared(device: Device, pattern: Pattern, seeds: int = 1) -> tuple[Shared, Shared]:
    """With full runs, and with runs no longer than needed."""
    with with_full_runs():
        before = _shared(device, pattern, seeds)
    return before, _shared(device, pattern, seeds)
