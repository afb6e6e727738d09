"""Which device answers: the one that would be done first, equals in turn, the unmeasured tried."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.api.dispatch import Candidate, SpeedEstimates, choose_instance

DEVICES = ("cuda:0", "cuda:1", "cuda:2")


def candidate(device: str, image_s: float | None = 0.01, instance_id: int = 0) -> Candidate:
    return Candidate(device, instance_id or DEVICES.index(device) + 1, image_s)


def chosen(
    *candidates: Candidate, outstanding_s: dict[str, float] | None = None, images: int = 1, turn: int = 0
) -> str:
    return choose_instance(candidates, outstanding_s or {}, images, turn).device


def test_device_with_least_outstanding_work_answers() -> None:
    equals = [candidate("cuda:0"), candidate("cuda:1")]

    assert chosen(*equals, outstanding_s={"cuda:0": 0.05, "cuda:1": 0.04}) == "cuda:1"


def test_fast_device_is_preferred_to_an_idle_slow_one_while_it_would_be_done_sooner() -> None:
    fast, slow = candidate("cuda:0", 0.001), candidate("cuda:1", 0.1)

    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.05}) == "cuda:0"
    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.15}) == "cuda:1"


def test_all_images_of_a_request_count() -> None:
    fast, slow = candidate("cuda:0", 0.01), candidate("cuda:1", 0.02)

    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.03}, images=1) == "cuda:1"
    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.03}, images=8) == "cuda:0"


def test_equals_take_turns() -> None:
    equals = [candidate(device) for device in DEVICES]

    assert Counter(chosen(*equals, turn=turn) for turn in range(9)) == dict.fromkeys(DEVICES, 3)


def test_unmeasured_instance_is_taken_for_as_fast_as_the_fastest() -> None:
    known, unknown = candidate("cuda:0", 0.01), candidate("cuda:1", None)

    assert chosen(known, unknown, outstanding_s={"cuda:0": 0.001}) == "cuda:1"
    assert chosen(known, unknown, outstanding_s={"cuda:1": 0.001}) == "cuda:0"


def test_faster_of_two_instances_on_one_device_answers() -> None:
    old, new = candidate("cuda:0", 0.01, 1), candidate("cuda:0", 0.002, 2)

    assert choose_instance([old, new], {"cuda:0": 1.0}, 1, 0) is new


candidates = st.lists(
    st.tuples(st.sampled_from(DEVICES), st.none() | st.floats(1e-5, 10.0)), min_size=1, max_size=6
).map(lambda items: [Candidate(device, number, image_s) for number, (device, image_s) in enumerate(items, 1)])


@given(
    candidates,
    st.dictionaries(st.sampled_from(DEVICES), st.floats(0.0, 1e3)),
    st.integers(1, 16),
    st.integers(0, 10**9),
)
def test_no_other_candidate_would_be_done_sooner(
    given_candidates: list[Candidate], outstanding_s: dict[str, float], images: int, turn: int
) -> None:
    found = choose_instance(given_candidates, outstanding_s, images, turn)

    fastest_s = min((item.image_s for item in given_candidates if item.image_s is not None), default=0.01)

    def done_s(item: Candidate) -> float:
        return outstanding_s.get(item.device, 0.0) + images * (fastest_s if item.image_s is None else item.image_s)

    assert found in given_candidates
    assert done_s(found) <= min(map(done_s, given_candidates)) + 1e-6


@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=3), st.integers(50, 300))
def test_backlog_is_shared_by_speed(speeds_s: list[float], requests: int) -> None:
    """Nobody answers: when all have been handed out, no device is more than one image further behind than another."""
    given_candidates = [candidate(device, image_s) for device, image_s in zip(DEVICES, speeds_s, strict=False)]
    outstanding_s: Counter[str] = Counter()
    for turn in range(requests):
        found = choose_instance(given_candidates, outstanding_s, 1, turn)
        outstanding_s[found.device] += found.image_s  # type: ignore[assignment]  # a counter of seconds

    behind = [outstanding_s[item.device] for item in given_candidates]
    assert max(behind) - min(behind) <= max(speeds_s) + 1e-5


def test_estimate_follows_what_is_seen() -> None:
    speeds = SpeedEstimates()
    assert speeds.image_s(1) is None

    speeds.observe(1, 0.08, 8)
    assert speeds.image_s(1) == pytest.approx(0.01)
    for _ in range(40):
        speeds.observe(1, 0.02, 1)
    assert speeds.image_s(1) == pytest.approx(0.02, rel=0.01)


def test_request_that_never_ran_says_nothing_of_speed() -> None:
    speeds = SpeedEstimates()
    speeds.observe(1, 0.0, 0)

    assert speeds.image_s(1) is None


def test_outstanding_work_counts_every_instance_of_a_device() -> None:
    speeds = SpeedEstimates()
    speeds.observe(1, 0.01, 1)
    speeds.observe(2, 0.1, 1)

    assert speeds.outstanding_s({1: 3, 2: 2}) == pytest.approx(0.23)
    assert speeds.outstanding_s({1: 1, 9: 1}) == pytest.approx(0.02), "unmeasured counts like the fastest"
    assert speeds.outstanding_s({}) == 0.0


def test_instances_that_are_gone_are_forgotten() -> None:
    speeds = SpeedEstimates()
    speeds.observe(1, 0.01, 1)
    speeds.observe(2, 0.01, 1)

    speeds.keep_only([2, 3])

    assert (speeds.image_s(1), speeds.image_s(2)) == (None, 0.01)
