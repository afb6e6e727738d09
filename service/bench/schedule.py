"""When requests are meant to be sent: pure functions, ascending times, and equal schedules for equal seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.service.errors import BadParameter

FloatArray = NDArray[np.float64]

MAX_REQUESTS = 5_000_000  # each keeps about 64 bytes in memory until the report


@dataclass(frozen=True, slots=True)
class Constant:
    """Evenly spaced arrivals."""

    rate_rps: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Poisson:
    """Arrivals of independent users, with exponentially distributed gaps."""

    rate_rps: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """Arrivals of an earlier run, `speed` times as fast."""

    arrivals_s: tuple[float, ...]
    speed: float = 1.0


Arrivals = Constant | Poisson | Recorded


@dataclass(frozen=True, slots=True)
class SendSchedule:
    """Ascending seconds from the start of measuring. Requests before zero are warm-up and not reported."""

    due_s: FloatArray  # (requests,)
    duration_s: float

    @property
    def warm_up_count(self) -> int:
        return int(np.searchsorted(self.due_s, 0.0))


def schedule_of(arrivals: Arrivals, seed: int, warm_up_s: float = 0.0, requests: int | None = None) -> SendSchedule:
    """The whole schedule. Raises BadParameter when it is empty or too large.

    Warm-up is a Poisson process at the rate that measuring begins with. `requests` cuts what is measured.
    """
    expected = requests if requests is not None else request_count(arrivals)
    if expected + warm_up_s * first_rate(arrivals) > MAX_REQUESTS:
        raise BadParameter(
            f"about {expected:.0f} requests are more than {MAX_REQUESTS}: lower the rate or the duration"
        )
    measured_seed, warm_up_seed = np.random.SeedSequence(seed).spawn(2)
    if requests is not None:
        arrivals = _long_enough(arrivals, requests)
    due_s = _arrivals_s(arrivals, np.random.default_rng(measured_seed))[:requests]
    if not len(due_s):
        raise BadParameter("the plan holds no request: raise the rate or the duration")
    duration_s = duration_of(arrivals) if requests is None else float(due_s[-1])
    warm_s = _poisson_s(first_rate(arrivals), warm_up_s, np.random.default_rng(warm_up_seed)) - warm_up_s
    return SendSchedule(np.concatenate([warm_s, due_s]), duration_s)


def duration_of(arrivals: Arrivals) -> float:
    match arrivals:
        case Recorded(arrivals_s, speed):
            return max(arrivals_s, default=0.0) / speed
        case _:
            return arrivals.duration_s


def request_count(arrivals: Arrivals) -> float:
    """Expected number of requests."""
    match arrivals:
        case Recorded(arrivals_s):
            return len(arrivals_s)
        case _:
            return arrivals.rate_rps * arrivals.duration_s


def first_rate(arrivals: Arrivals) -> float:
    """The rate with which measuring begins, in requests per second; the mean of a recording."""
    match arrivals:
        case Recorded():
            return request_count(arrivals) / max(duration_of(arrivals), 1.0)
        case _:
            return arrivals.rate_rps


def _long_enough(arrivals: Arrivals, requests: int) -> Arrivals:
    """For a number of requests instead of a duration: arrivals that surely hold at least so many."""
    match arrivals:
        case Constant(rate):
            return Constant(rate, (requests + 1) / rate)
        case Poisson(rate):
            return Poisson(rate, (requests + 10 * requests**0.5 + 10) / rate)
        case _:
            return arrivals


def _arrivals_s(arrivals: Arrivals, random: np.random.Generator) -> FloatArray:
    match arrivals:
        case Constant(rate, duration_s):
            return _before(np.arange(int(rate * duration_s) + 1, dtype=np.float64) / rate, duration_s)
        case Poisson(rate, duration_s):
            return _poisson_s(rate, duration_s, random)
        case Recorded(arrivals_s, speed):
            return np.sort(np.array(arrivals_s, np.float64)) / speed


def _poisson_s(rate_rps: float, duration_s: float, random: np.random.Generator) -> FloatArray:
    """Times of a Poisson process. Given its count, they are uniform moments, sorted."""
    return np.sort(random.uniform(0.0, duration_s, random.poisson(rate_rps * duration_s)))


def _before(moments_s: FloatArray, end_s: float) -> FloatArray:
    return moments_s[moments_s < end_s]
