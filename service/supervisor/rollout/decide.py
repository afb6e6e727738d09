"""Decides whether a canary gets more requests, waits, or loses them: a pure function of what was counted.

Four things are compared with the stable version, which answers at the same time: errors, the median and the 99th
percentile of the latency, and agreement of the answers. Each is tested at every look by bounds that hold at all times
together (`bounds.py`), and `false_alarms` is divided among checks and steps, so it bounds the probability that a
version as good as stable is ever taken back because of them.

- Errors: of all errors, the canary's share is no larger than its share of the requests, whatever the rate is.
- Latency: the canary exceeds `slower` times a quantile of stable no more often than stable exceeds that quantile. The
  quantile is read a bin of 5 % beyond its own upper bound, after Howard and Ramdas, Sequential estimation of quantiles
  with applications to A/B testing and best-arm identification, Bernoulli 28, 2022.
- Agreement: its mean over the images of the shadow reaches `min_agreement`.

A step goes on when nothing speaks against the canary. The last one asks for more: that its errors, latency and answers
are within the limits beyond doubt, at the same rate of mistakes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from saccade.service.repository.serving_document import Limits, Rollout
from saccade.service.running_figures import bin_of, upper_edge_s
from saccade.service.supervisor.rollout.bounds import interval, is_above, is_below

_CHECKS = 4
_QUANTILES = ((0.5, "median", 0.0), (0.99, "99th percentile", 0.01))  # and the slack of its proof, in probability


@dataclass(slots=True)
class Arm:
    """What happened to the requests of one version in one step."""

    answered: int = 0
    errors: int = 0
    latencies: Counter[int] = field(default_factory=Counter)  # answers by bin, see running_figures.py
    compared: int = 0
    agreement: float = 0.0  # a sum

    @property
    def requests(self) -> int:
        return self.answered + self.errors

    def add(self, other: Arm) -> None:
        """Counts what another one counted, too."""
        self.answered += other.answered
        self.errors += other.errors
        self.latencies.update(other.latencies)
        self.compared += other.compared
        self.agreement += other.agreement


@dataclass(frozen=True, slots=True)
class Decision:
    kind: Literal["next", "hold", "back"]
    reason: str


def decide(rollout: Rollout, elapsed_s: float, stable: Arm, canary: Arm, *, has_shadow: bool) -> Decision:
    """Returns what follows from the present step's counts; `elapsed_s` are the seconds since it began."""
    limits, step = rollout.limits, rollout.steps[rollout.step]
    alpha = limits.false_alarms / (_CHECKS * len(rollout.steps))
    against = _errors(stable, canary, alpha) or _latency(stable, canary, limits, alpha)
    if not against and has_shadow:
        against = _answers(canary, limits, alpha)
    if against:
        return Decision("back", against)
    if canary.answered < step.min_requests:
        missing = f"{canary.answered} of {step.min_requests} requests"
    elif elapsed_s < step.min_time_s:
        missing = f"{elapsed_s:.0f} of {step.min_time_s:g} s"
    elif rollout.step == len(rollout.steps) - 1:
        missing = _unproven(stable, canary, limits, alpha, has_shadow=has_shadow)
    else:
        missing = ""
    if not missing:
        return Decision("next", f"{canary.answered} requests, {_figures(stable, canary)}")
    if elapsed_s >= rollout.give_up_s:
        return Decision("back", f"not shown to be as good within {rollout.give_up_s:g} s: {missing}")
    return Decision("hold", missing)


def _errors(stable: Arm, canary: Arm, alpha: float) -> str:
    """Given that a request failed, it is the canary's with the probability of any request, if both fail as often."""
    requests = stable.requests + canary.requests
    if not requests or not is_above(canary.requests / requests, canary.errors, stable.errors + canary.errors, alpha):
        return ""
    return f"errors: {canary.errors} of {canary.requests} requests, stable has {stable.errors} of {stable.requests}"


def _latency(stable: Arm, canary: Arm, limits: Limits, alpha: float) -> str:
    for quantile, name, _ in _QUANTILES:
        edge = _surely_beyond(stable.latencies, quantile, alpha)
        if edge is None:
            continue
        slow = _beyond(canary.latencies, _slower(edge, limits))
        if is_above(1.0 - quantile, slow, canary.answered, alpha):
            seconds = [_quantile_s(arm.latencies, quantile) for arm in (canary, stable)]
            return f"{name}: {1000 * seconds[0]:.1f} ms, stable has {1000 * seconds[1]:.1f} ms"
    return ""


def _answers(canary: Arm, limits: Limits, alpha: float) -> str:
    lost = canary.compared - canary.agreement
    if not is_above(1.0 - limits.min_agreement, lost, canary.compared, alpha):
        return ""
    mean = canary.agreement / canary.compared
    return f"agreement: {mean:.4f} over {canary.compared} images, asked for are {limits.min_agreement:g}"


def _unproven(stable: Arm, canary: Arm, limits: Limits, alpha: float, *, has_shadow: bool) -> str:
    """Returns what is not known well enough to make the canary stable; empty when all is."""
    lowest = interval(stable.errors, stable.requests, alpha)[0]
    highest = interval(canary.errors, canary.requests, alpha)[1]
    if highest > lowest + limits.more_errors:
        return (
            f"{canary.requests} requests leave up to {highest:.3%} errors possible, "
            f"{lowest + limits.more_errors:.3%} are allowed"
        )
    for quantile, name, slack in _QUANTILES:
        slow = _beyond(canary.latencies, _slower(bin_of(_quantile_s(stable.latencies, quantile)), limits))
        if not is_below(1.0 - quantile + slack, slow, canary.answered, alpha):
            return f"{name}: {canary.answered} requests do not exclude that it is {limits.slower:g} times stable's"
    if has_shadow and not is_below(
        1.0 - limits.min_agreement, canary.compared - canary.agreement, canary.compared, alpha
    ):
        return f"{canary.compared} images do not show an agreement of {limits.min_agreement:g}"
    return ""


def _figures(stable: Arm, canary: Arm) -> str:
    medians = [1000 * _quantile_s(arm.latencies, 0.5) for arm in (canary, stable)]
    agreement = f", agreement {canary.agreement / canary.compared:.4f}" if canary.compared else ""
    return f"{canary.errors} errors, median {medians[0]:.1f} ms beside {medians[1]:.1f} ms{agreement}"


def _surely_beyond(latencies: Mapping[int, int], quantile: float, alpha: float) -> int | None:
    """Returns the first bin that has more than this share of the latencies in or below it, beyond doubt."""
    count = sum(latencies.values())
    reached = 0
    for number in sorted(latencies):
        reached += latencies[number]
        if is_above(quantile, reached, count, alpha):
            return number
    return None


def _slower(number: int, limits: Limits) -> int:
    return bin_of(limits.slower * upper_edge_s(number))


def _beyond(latencies: Mapping[int, int], edge: int) -> int:
    return sum(count for number, count in latencies.items() if number > edge)


def _quantile_s(latencies: Mapping[int, int], quantile: float) -> float:
    """Returns the upper edge of the bin that holds the quantile; not a number without any latency."""
    rest = quantile * sum(latencies.values())
    for number in sorted(latencies):
        rest -= latencies[number]
        if rest <= 0:
            return upper_edge_s(number)
    return math.nan
