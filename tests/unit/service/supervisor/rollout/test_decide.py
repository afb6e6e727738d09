"""What a step's counts lead to: the next one, waiting, or back; with the reason in words."""

from __future__ import annotations

from collections import Counter

import pytest

from saccade.service.repository.serving_document import Rollout, Step
from saccade.service.running_figures import bin_of
from saccade.service.supervisor.rollout.decide import Arm, Decision, decide
from tests.load.rollout_simulation import KINDS, Kind, simulated

STEPS = tuple(Step(share=share, min_requests=100, min_time_s=10.0) for share in (0.1, 0.5))
FIRST, LAST = Rollout(steps=STEPS), Rollout(steps=STEPS, step=1)


def arm(answered: int, errors: int = 0, compared: int = 0, agreement: float = 1.0, slower: float = 1.0) -> Arm:
    """Nine of ten answers take 10 ms, the rest 50 ms."""
    slow = answered // 10
    latencies = Counter({bin_of(0.01 * slower): answered - slow, bin_of(0.05 * slower): slow})
    return Arm(answered, errors, latencies, compared, agreement * compared)


def decided(rollout: Rollout, stable: Arm, canary: Arm, elapsed_s: float = 60.0, has_shadow: bool = False) -> Decision:
    return decide(rollout, elapsed_s, stable, canary, has_shadow=has_shadow)


def test_step_waits_for_its_requests_and_its_time() -> None:
    assert decided(FIRST, arm(900), arm(99)).reason == "99 of 100 requests"
    assert decided(FIRST, arm(900), arm(100), elapsed_s=9.0).reason == "9 of 10 s"
    assert decided(FIRST, arm(900), arm(100)).kind == "next"


def test_last_step_asks_for_proof() -> None:
    early = decided(LAST, arm(300), arm(300))
    assert (early.kind, "errors possible" in early.reason) == ("hold", True)
    assert decided(LAST, arm(10_000), arm(10_000)).kind == "next"

    unseen = decided(LAST, arm(10_000), arm(10_000), has_shadow=True)
    assert (unseen.kind, unseen.reason) == ("hold", "0 images do not show an agreement of 0.97")
    assert decided(LAST, arm(10_000), arm(10_000, compared=2000), has_shadow=True).kind == "next"


def test_step_that_proves_nothing_goes_back_at_last() -> None:
    found = decided(LAST, arm(300), arm(300), elapsed_s=LAST.give_up_s)

    assert (found.kind, "not shown to be as good within 86400 s" in found.reason) == ("back", True)


@pytest.mark.parametrize(
    ("stable", "canary", "reason"),
    [
        (arm(1000), arm(100, errors=5), "errors: 5 of 105 requests, stable has 0 of 1000"),
        (arm(9000), arm(1000, slower=2.0), "median: "),
        (arm(1000), arm(100, compared=400, agreement=0.9), "agreement: 0.9000 over 400 images"),
    ],
)
def test_what_is_worse_goes_back_at_once(stable: Arm, canary: Arm, reason: str) -> None:
    found = decided(FIRST, stable, canary, elapsed_s=1.0, has_shadow=True)

    assert found.kind == "back"
    assert found.reason.startswith(reason)


def test_slow_tail_goes_back_though_the_median_is_the_same() -> None:
    canary = arm(2000)
    canary.latencies[bin_of(0.01)] -= 100
    canary.latencies[bin_of(0.5)] += 100

    assert decided(FIRST, arm(20_000), canary).reason.startswith("99th percentile")


def test_errors_that_both_have_alike_do_not_count_against_the_canary() -> None:
    assert decided(FIRST, arm(9000, errors=450), arm(1000, errors=50)).kind == "next"
    assert decided(FIRST, arm(0), arm(0)).kind == "hold"


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_simulated_version_gets_what_it_deserves(kind: Kind) -> None:
    outcomes = simulated(kind, 3, seed=11)

    assert [outcome.is_promoted for outcome in outcomes] == [kind.is_good] * 3
