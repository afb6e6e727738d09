"""When requests are meant to be sent. Promises: pure, ascending, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.service.errors import BadParameter

FloatArray = NDArray[np.float64]

MAX_REQUESTS = 5_000_000  # about 64 bytes each are kept until the report


@dataclass(frozen=True, slots=True)
class Constant:
    """Evenly spaced."""

    rate_rps: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent users: exponential gaps."""

    rate_rps: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Step:
    rate_rps: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Steps:
    """One Poisson process after another."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Burst:
    """`size` requests at the same moment, so often that the mean rate is `rate_rps`."""

    rate_rps: float
    duration_s: float
    size: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """Arrivals of an earlier run, `speed` times as fast."""

    arrivals_s: tuple[float, ...]
    speed: float = 1.0


Arrivals = Constant | Poisson | Steps | Burst | Recorded


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds from the start of measuring, ascending; what lies before zero is warm-up and is not reported."""

    due_s: FloatArray  # (requests,)
    duration_s: float
    steps: tuple[Step, ...] = ()  # of `Steps`, for a report per step

    @property
    def warm_up_count(self) -> int:
        return int(np.searchsorted(self.due_s, 0.0))


def schedule_of(arrivals: Arrivals, seed: int, warm_up_s: float = 0.0, requests: int | None = None) -> Schedule:
    """The whole plan. Raises BadParameter for one that is empty or too large.

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
    return Schedule(np.concatenate([warm_s, due_s]), duration_s, arrivals.steps if isinstance(arrivals, Steps) else ())


def duration_of(arrivals: Arrivals) -> float:
    match arrivals:
        case Steps(steps):
            return sum(step.duration_s for step in steps)
        case Recorded(arrivals_s, speed):
            return max(arrivals_s, default=0.0) / speed
        case _:
            return arrivals.duration_s


def request_count(arrivals: Arrivals) -> float:
    """Expected number of requests."""
    match arrivals:
        case Steps(steps):
            return sum(step.rate_rps * step.duration_s for step in steps)
        case Recorded(arrivals_s):
            return len(arrivals_s)
        case _:
            return arrivals.rate_rps * arrivals.duration_s


def first_rate(arrivals: Arrivals) -> float:
    """Requests per second that measuring begins with; the mean for a recording."""
    match arrivals:
        case Steps(steps):
            return steps[0].rate_rps
        case Recorded():
            return request_count(arrivals) / max(duration_of(arrivals), 1.0)
        case _:
            return arrivals.rate_rps


def steps_from(text: str) -> Steps:
    """`100x10,200x10`: requests per second times seconds. Raises BadParameter."""
    steps = []
    for item in text.split(","):
        rate, times, duration = item.partition("x")
        try:
            step = Step(float(rate), float(duration))
        except ValueError:
            step = Step(0.0, 0.0)
        if not times or not 0 < step.rate_rps < np.inf or not 0 < step.duration_s < np.inf:
            raise BadParameter(f"a step is RATExSECONDS such as 100x10, both above zero; got {item!r}")
        steps.append(step)
    return Steps(tuple(steps))


def _long_enough(arrivals: Arrivals, requests: int) -> Arrivals:
    """With a number of requests instead of a duration: surely at least so many."""
    match arrivals:
        case Constant(rate):
            return Constant(rate, (requests + 1) / rate)
        case Poisson(rate):
            return Poisson(rate, (requests + 10 * requests**0.5 + 10) / rate)
        case Burst(rate, _, size):
            return Burst(rate, (requests + size) / rate, size)
        case _:
            return arrivals


def _arrivals_s(arrivals: Arrivals, random: np.random.Generator) -> FloatArray:
    match arrivals:
        case Constant(rate, duration_s):
            return _before(np.arange(int(rate * duration_s) + 1, dtype=np.float64) / rate, duration_s)
        case Poisson(rate, duration_s):
            return _poisson_s(rate, duration_s, random)
        case Steps(steps):
            return _steps_s(steps, random)
        case Burst(rate, duration_s, size):
            starts_s = np.arange(int(rate * duration_s / size) + 1, dtype=np.float64) * (size / rate)
            return np.repeat(_before(starts_s, duration_s), size)
        case Recorded(arrivals_s, speed):
            return np.sort(np.array(arrivals_s, np.float64)) / speed


def _poisson_s(rate_rps: float, duration_s: float, random: np.random.Generator) -> FloatArray:
    """A Poisson process given its count is that many uniform moments, sorted."""
    return np.sort(random.uniform(0.0, duration_s, random.poisson(rate_rps * duration_s)))


def _steps_s(steps: Sequence[Step], random: np.random.Generator) -> FloatArray:
    parts = []
    start_s = 0.0
    for step in steps:
        parts.append(_poisson_s(step.rate_rps, step.duration_s, random) + start_s)
        start_s += step.duration_s
    return np.concatenate(parts)


def _before(moments_s: FloatArray, end_s: float) -> FloatArray:
    return moments_s[moments_s < end_s]
