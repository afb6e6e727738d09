"""When a version loses its traffic: pure, on counts and times."""

from __future__ import annotations

import random

import pytest

from saccade.service.core import VersionKey
from saccade.service.supervisor.breaker import (
    KILL_WINDOW_S,
    PROBATION_S,
    Answers,
    Kill,
    RecentAnswers,
    reason_of_answers,
    reason_of_kills,
)
from saccade.service.supervisor.policy import FOLLOW, ServingPolicy, without
from saccade.service.supervisor.stable_versions import StableVersions

RUNNING = Kill(0.0)


@pytest.mark.parametrize(
    ("kills", "is_on_trial", "reason"),
    [
        ([RUNNING], False, ""),
        ([RUNNING], True, "it killed its worker while it answered"),
        ([RUNNING, Kill(KILL_WINDOW_S - 1)], False, "it killed its worker 2 times"),
        ([RUNNING, Kill(KILL_WINDOW_S + 1)], False, ""),
        ([RUNNING, Kill(9.0, is_hang=True)], False, "made its worker hang while it answered"),
        ([Kill(0.0, is_loading=True)], False, ""),
        (
            [Kill(0.0, is_loading=True), Kill(1e6, is_loading=True)],
            False,
            "while it was loaded",
        ),  # at any distance
        ([Kill(0.0, is_loading=True, is_hang=True)], False, "it made its worker hang while it was loaded"),
    ],
)
def test_kills_count_twice_and_once_on_trial(kills: list[Kill], is_on_trial: bool, reason: str) -> None:
    found = reason_of_kills(kills, kills[-1].at_s, is_on_trial=is_on_trial)

    assert (reason in found) if reason else found == ""


@pytest.mark.parametrize(
    ("found", "beside", "is_taken_away"),
    [
        (Answers(4, 4), Answers(1000), False),  # one client that tries its bad image again
        (Answers(5, 5), Answers(), True),
        (Answers(5, 5), Answers(200, 190), False),  # the stable version fails as well: something else is wrong
        (Answers(100, 5), Answers(2000), True),
        (Answers(1000, 10), Answers(1000, 8), False),
        (Answers(300, 15), Answers(6000, 60), True),
        (Answers(10_000, 5), Answers(10_000), False),
    ],
)
def test_failures_are_judged_beside_the_stable_version(found: Answers, beside: Answers, is_taken_away: bool) -> None:
    assert bool(reason_of_answers(found, beside)) == is_taken_away


def test_equal_versions_are_hardly_ever_told_apart_although_every_failure_is_a_look() -> None:
    chance, wrong = random.Random(7), 0
    for _ in range(300):
        counts = {"canary": Answers(), "stable": Answers()}
        for _ in range(1500):
            arm = "canary" if chance.random() < 0.2 else "stable"
            counts[arm] = counts[arm] + Answers(1, int(chance.random() < 0.01))
            if arm == "canary" and reason_of_answers(counts["canary"], counts["stable"]):
                wrong += 1
                break
    assert wrong <= 3


def test_reason_gives_the_figures() -> None:
    reason = reason_of_answers(Answers(20, 10, not_finite=7), Answers(400, 1))

    assert reason == (
        "10 of 20 requests were answered 500, 7 of them for answers that are no finite numbers; "
        "of the version beside it 1 of 400"
    )


def test_old_answers_are_forgotten() -> None:
    recent = RecentAnswers()
    recent.add(Answers(10, 5), 0.0)
    recent.add(Answers(10, 1), 30.0)
    recent.add(Answers(10), PROBATION_S - 90)

    assert recent.total(PROBATION_S - 90) == Answers(30, 6)
    assert recent.total(PROBATION_S + 60) == Answers(10)
    assert recent.total(3 * PROBATION_S) == Answers()


def held(version: int, *named: int) -> ServingPolicy:
    return ServingPolicy(version, frozenset({version, *named}), grace_s=600.0)


@pytest.mark.parametrize(
    ("policy", "given_up", "before", "present", "stable"),
    [
        (held(5), {5}, [3], [3, 4, 5, 6], 3),  # the one that was stable before
        (held(5), {5}, [], [3, 4, 5, 6], 4),  # or the newest older one; nobody asked for 6
        (held(5), {5, 4}, [4], [3, 4, 5], 3),
        (held(5), {5}, [], [5, 6], 5),
        (held(5), {4}, [4], [4, 5], 5),
        (FOLLOW, {5}, [4], [4, 5], None),
    ],
)
def test_last_good_version_takes_over_from_one_that_is_held(
    policy: ServingPolicy, given_up: set[int], before: list[int], present: list[int], stable: int | None
) -> None:
    assert without(policy, given_up, before, present).stable == stable


def test_promoted_version_is_on_probation_and_one_that_returns_or_starts_is_not() -> None:
    stable = StableVersions()
    first, second = VersionKey("digits", 1), VersionKey("digits", 2)
    stable.settle({"digits": held(1)}, {"digits": [1]}, 0.0)
    assert not stable.is_on_probation(first, 1.0)  # the server has just started

    stable.settle({"digits": held(2)}, {"digits": [1, 2]}, 10.0)
    assert stable.is_on_probation(second, 11.0)
    assert not stable.is_on_probation(second, 11.0 + PROBATION_S)
    assert (stable.before("digits"), [*stable.grace]) == ([1], [first])

    stable.settle({"digits": held(1)}, {"digits": [1, 2]}, 20.0)
    assert not stable.is_on_probation(first, 21.0)
    assert stable.before("digits") == [2]
