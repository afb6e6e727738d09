"""Decides when a version loses its traffic on this replica: counts and times in, the reason out. Pure.

A version is on trial while it is a canary, or was made stable a short while ago, and another version could take over.
One that is on trial is judged by each kill of its worker and by its 500s; any other only by repeated kills, because a
client can send one bad image again and again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

PROBATION_S = 600.0
KILL_WINDOW_S = 600.0
MAX_KILLS = 2  # a single one may have another cause, such as too little memory at that moment
MIN_FAILURES = 5  # a client that sends one bad image and tries it again is not enough
# The chance that a version as good as the one beside it seems so bad at one look. It is small, because every report of
# a rollout is a look.
_ALARM = 1e-5
# What is assumed of the version beside as long as it has answered little: one failure in so many requests.
_ASSUMED_REQUESTS = 100
_BUCKET_S = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """The end of a worker while it ran or loaded a version."""

    at_s: float  # monotonic
    is_loading: bool = False
    is_hang: bool = False  # the supervisor ended it, because it did not answer


@dataclass(frozen=True, slots=True)
class Answers:
    """Requests that ran, and those among them that were answered 500."""

    requests: int = 0
    failed: int = 0
    not_finite: int = 0  # of the failed ones

    def __add__(self, other: Answers) -> Answers:
        return Answers(self.requests + other.requests, self.failed + other.failed, self.not_finite + other.not_finite)


def reason_of_kills(kills: Sequence[Kill], now_s: float, *, is_on_trial: bool) -> str:
    """Returns why a version is taken away after the last of these kills; empty where it is not.

    A first run that hangs counts at once: it is not tried again while others wait for the device.
    """
    counted = [kill for kill in kills if kill.is_loading or now_s - kill.at_s <= KILL_WINDOW_S]
    last = counted[-1] if counted else None
    if last is None or not (is_on_trial or len(counted) >= MAX_KILLS or (last.is_loading and last.is_hang)):
        return ""
    did = "made its worker hang" if last.is_hang else "killed its worker"
    when = "while it was loaded" if last.is_loading else "while it answered"
    if len(counted) == 1:
        return f"it {did} {when}"
    times = f"{len(counted)} times within {KILL_WINDOW_S / 60:.0f} minutes"
    return f"it killed its worker {times}; the last time it {did} {when}"


def reason_of_answers(found: Answers, beside: Answers) -> str:
    """Returns why a version on trial is taken away for its 500s; empty where it is not.

    `beside` is what the stable version did meanwhile, or the one before it did until it was replaced. By Chernoff's
    bound, so many failures have a chance of at most `_ALARM` at the rate of `beside`.
    """
    if found.failed < MIN_FAILURES:
        return ""
    usual = (beside.failed + 1) / (beside.requests + _ASSUMED_REQUESTS)
    rate = found.failed / found.requests
    if rate <= usual or found.requests * _divergence(rate, usual) < -math.log(_ALARM):
        return ""
    finite = f", {found.not_finite} of them for answers that are no finite numbers" if found.not_finite else ""
    return (
        f"{found.failed} of {found.requests} requests were answered 500{finite}; "
        f"of the version beside it {beside.failed} of {beside.requests}"
    )


def _divergence(rate: float, usual: float) -> float:
    """Returns the Kullback-Leibler divergence of two rates of failure."""
    rest = (1 - rate) * math.log((1 - rate) / (1 - usual)) if rate < 1 else 0.0
    return rate * math.log(rate / usual) + rest


class RecentAnswers:
    """The answers of one version within the last ten minutes."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, Answers]] = deque(maxlen=round(PROBATION_S / _BUCKET_S))

    def add(self, answers: Answers, now_s: float) -> None:
        bucket = int(now_s // _BUCKET_S)
        if self._buckets and self._buckets[-1][0] == bucket:
            answers = self._buckets.pop()[1] + answers
        self._buckets.append((bucket, answers))

    def total(self, now_s: float) -> Answers:
        first = int((now_s - PROBATION_S) // _BUCKET_S)
        return sum((answers for bucket, answers in self._buckets if bucket > first), Answers())
