"""Chooses the next rate to try: pure. The search always ends, with a rate that was tried and met the objective.

A rate meets the objective when at most one per cent of its requests are late, counting failed ones as late. Doubling
finds a rate that misses it; then the gap is halved geometrically. A rate is tried again when it had too few requests
for a verdict, and all its requests count together. Late requests come in clumps, while the verdict's bounds assume
independent ones: so a rate is missed only after a second trial, unless the first one collapsed. Where lower rates do
not help, requests fail for another reason than load, and the search ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from saccade.service.bench.statistics import Verdict, verdict_of

ALLOWED_LATE = 0.01  # the objective is one for p99
MIN_REQUESTS = 300  # with no late request among so many, the rate surely met the objective
_TRIES = 3
_COLLAPSED = 0.1  # a passing disturbance does not make so large a share late
_HALVINGS = 12
_SAME_IN_A_ROW = 3
_SAME_SHARE = 0.7
_BEYOND_CAPACITY = 0.5


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a rate; `late` counts requests not answered well within the objective."""

    rate_rps: float
    requests: int
    late: int
    p99_ms: float | None  # p99 latency of good answers
    is_client_limited: bool = False

    @property
    def late_ratio(self) -> float:
        return self.late / self.requests if self.requests else 1.0


class SearchEnd(StrEnum):
    FOUND = "found"
    INTERRUPTED = "interrupted"
    NO_RATE = "no rate meets the objective"
    RATE_LIMIT = "every rate up to the limit meets it: raise --max-rate"
    CLIENT_LIMIT = "the client is the limit: give it more processes or another machine"


@dataclass(frozen=True, slots=True)
class SearchLimits:
    start_rps: float
    max_rps: float
    precision: float = 0.05  # as a share of the rate


class SloSearch:
    """The search as a state: ask `next_rate`, try it, `record` the trial, until `next_rate` is None."""

    def __init__(self, limits: SearchLimits) -> None:
        self._limits = limits
        self._rate: float = min(limits.start_rps, limits.max_rps)
        self._of_rate: list[Trial] = []
        self._met: float | None = None
        self._missed: float | None = None
        self._missed_ratios: list[float] = []
        self.end: SearchEnd | None = None
        self.trials: list[Trial] = []

    @property
    def met_rps(self) -> float | None:
        """The highest rate that met the objective."""
        return self._met

    @property
    def missed_rps(self) -> float | None:
        """The lowest rate that missed it."""
        return self._missed

    def interrupt(self) -> None:
        """Ends the search."""
        self.end = self.end or SearchEnd.INTERRUPTED

    def next_rate(self) -> float | None:
        return None if self.end is not None else self._rate

    def record(self, trial: Trial) -> Verdict:
        """Adds a trial and returns the verdict on its rate, earlier trials included."""
        self.trials.append(trial)
        self._of_rate.append(trial)
        verdict = self._verdict()
        if verdict is Verdict.UNCLEAR:
            return verdict
        self._of_rate = []
        if verdict is Verdict.MET:
            self._met = trial.rate_rps
        elif trial.is_client_limited:
            self.end = SearchEnd.CLIENT_LIMIT
            return verdict
        else:
            self._missed = trial.rate_rps
            self._missed_ratios.append(trial.late_ratio)
        self._choose()
        return verdict

    def _verdict(self) -> Verdict:
        requests, late = sum(item.requests for item in self._of_rate), sum(item.late for item in self._of_rate)
        verdict = verdict_of(requests, late, ALLOWED_LATE)
        if verdict is Verdict.MISSED and len(self._of_rate) == 1 and late <= _COLLAPSED * requests:
            return Verdict.UNCLEAR
        if verdict is Verdict.UNCLEAR and len(self._of_rate) >= _TRIES:
            # The server's limit is so near to this rate that this many requests cannot tell them apart.
            return Verdict.MET if requests and late <= ALLOWED_LATE * requests else Verdict.MISSED
        return verdict

    def _choose(self) -> None:
        met, missed, limits = self._met, self._missed, self._limits
        if met is not None and missed is not None:
            self._rate = math.sqrt(met * missed)
            if missed / met <= 1 + limits.precision:
                self.end = SearchEnd.FOUND
        elif met is not None:
            self._rate = min(2 * met, limits.max_rps)
            if met >= limits.max_rps:
                self.end = SearchEnd.RATE_LIMIT
        elif missed is not None:
            self._rate = missed / 2
            if self._rate < limits.start_rps / 2**_HALVINGS or load_plays_no_part(self._missed_ratios):
                self.end = SearchEnd.NO_RATE


def load_plays_no_part(late_ratios: Sequence[float]) -> bool:
    """Whether halving the rate twice changed little: then requests fail for another reason, such as damaged images.

    Rates at which nearly all requests are late prove nothing, because a server far beyond its capacity does the same.
    """
    last = late_ratios[-_SAME_IN_A_ROW:]
    return len(last) == _SAME_IN_A_ROW and max(last) < _BEYOND_CAPACITY and min(last) > _SAME_SHARE * max(last)
