"""Rolls simulated versions out by the decisions of the server: `python -m tests.load.rollout_simulation`.

An identical version should be promoted; one that gives wrong answers, is slower, or crashes should be taken back. It
prints how many were, and how many requests saw the bad version until then.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saccade.service.repository.serving_document import Rollout, Step
from saccade.service.running_figures import bin_of
from saccade.service.supervisor.rollout.decide import Arm, decide

LOOK_S = 2.0
RATE = 200.0  # requests per second
SAMPLE = 0.1  # of the images that stable answers
_MEDIAN_S = 0.02
_SPREAD = 0.35  # of the logarithm of latencies
_USUAL_ERRORS = 0.0005


@dataclass(frozen=True, slots=True)
class Kind:
    """A simulated version: how it differs from stable."""

    name: str
    is_good: bool
    wrong: float = 0.0  # share of answers that differ
    slower: float = 1.0
    more_errors: float = 0.0


KINDS = (
    Kind("identical", is_good=True),
    Kind("5 % wrong answers", is_good=False, wrong=0.05),
    Kind("50 % slower", is_good=False, slower=1.5),
    Kind("crashes at 1 of 500", is_good=False, more_errors=1 / 500),
)
ROLLOUT = Rollout(steps=tuple(Step(share=share, min_requests=500, min_time_s=10.0) for share in (0.05, 0.25, 0.5)))


@dataclass(frozen=True, slots=True)
class Outcome:
    is_promoted: bool
    seen: int  # requests that the version got
    seconds: float
    reason: str


def rolled_out(kind: Kind, random: np.random.Generator, rollout: Rollout = ROLLOUT) -> Outcome:
    """Carries one rollout from its first step to its end, on simulated time."""
    seen, total_s = 0, 0.0
    while True:
        stable, canary, elapsed_s = Arm(), Arm(), 0.0
        while True:
            elapsed_s += LOOK_S
            count = random.poisson(RATE * LOOK_S)
            to_canary = random.binomial(count, rollout.steps[rollout.step].share)
            compared = random.binomial(count - to_canary, SAMPLE)
            _serve(stable, count - to_canary, Kind("stable", is_good=True), random)
            _serve(canary, to_canary, kind, random)
            canary.compared += compared
            canary.agreement += compared - random.binomial(compared, kind.wrong)
            seen += to_canary
            decision = decide(rollout, elapsed_s, stable, canary, has_shadow=True)
            if decision.kind != "hold":
                break
        total_s += elapsed_s
        if decision.kind == "back" or rollout.step + 1 == len(rollout.steps):
            return Outcome(decision.kind == "next", seen, total_s, decision.reason.partition(":")[0])
        rollout = rollout.model_copy(update={"step": rollout.step + 1})


def _serve(arm: Arm, count: int, kind: Kind, random: np.random.Generator) -> None:
    errors = int(random.binomial(count, _USUAL_ERRORS + kind.more_errors))
    seconds = kind.slower * _MEDIAN_S * np.exp(_SPREAD * random.standard_normal(count - errors))
    arm.errors += errors
    arm.answered += count - errors
    arm.latencies += Counter(bin_of(each) for each in seconds.tolist())


def simulated(kind: Kind, runs: int, seed: int) -> list[Outcome]:
    return [rolled_out(kind, np.random.default_rng([seed, run])) for run in range(runs)]


def line_of(kind: Kind, outcomes: Sequence[Outcome]) -> str:
    promoted = sum(outcome.is_promoted for outcome in outcomes)
    seen = statistics.median(outcome.seen for outcome in outcomes)
    seconds = statistics.median(outcome.seconds for outcome in outcomes)
    reasons = Counter(outcome.reason for outcome in outcomes if not outcome.is_promoted)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return (
        f"{kind.name:22} promoted {promoted:4} of {len(outcomes)}, taken back {len(outcomes) - promoted:4}; "
        f"median: {seen:7.0f} requests saw it, {seconds:5.0f} s  {why}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    is_fine = True
    for kind in KINDS:
        outcomes = simulated(kind, arguments.runs, arguments.seed)
        promoted = sum(outcome.is_promoted for outcome in outcomes) / len(outcomes)
        is_fine &= promoted >= 0.97 if kind.is_good else promoted == 0.0
        print(line_of(kind, outcomes), flush=True)
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
