"""Turns of models on one device: by weight, nothing saved up, urgency within the share only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saccade.service.worker.scheduling.fair_share import BURST_BATCHES, Claim, Share, VirtualClock, order_of
from tests.support.simulated_device import Flood, Ran, SimulatedDevice, percentile

CLAIM = Claim(tag_s=0.0, weight=1.0, rank_s=5.0, deadline_s=5.0, batch_s=0.01, run_s=0.01, single_s=0.004)


def test_smallest_tag_goes_first() -> None:
    assert order_of([replace(CLAIM, tag_s=2.0, rank_s=1.0), replace(CLAIM, tag_s=1.0)], 0.0) == [1, 0]


def test_equal_tags_go_by_deadline() -> None:
    assert order_of([CLAIM, replace(CLAIM, rank_s=4.0, deadline_s=4.0)], 0.0) == [1, 0]


def urgent(tag_s: float) -> Claim:
    """Misses its deadline behind another batch of 10 ms, and makes it before that."""
    return replace(CLAIM, tag_s=tag_s, deadline_s=0.012, rank_s=0.012)


def test_urgent_model_goes_first_when_it_would_be_next_anyway() -> None:
    assert order_of([CLAIM, urgent(tag_s=0.009)], 0.0) == [1, 0]


def test_urgent_model_beyond_its_share_waits() -> None:
    assert order_of([CLAIM, urgent(tag_s=0.011)], 0.0) == [0, 1]


def test_urgent_model_does_not_make_the_first_one_late() -> None:
    first = replace(CLAIM, deadline_s=0.013, rank_s=0.013)

    assert order_of([first, urgent(tag_s=0.009)], 0.0) == [0, 1]


def test_model_that_could_not_make_it_even_first_does_not_push_in() -> None:
    assert order_of([CLAIM, urgent(tag_s=0.009)], 0.1) == [0, 1]


def test_model_that_could_just_not_make_it_does_not_push_in() -> None:
    # given that one image takes 4 ms, and 3 ms are left
    assert order_of([CLAIM, urgent(tag_s=0.009)], 0.009) == [0, 1]


def test_share_of_a_heavier_first_model_ends_later_in_device_time() -> None:
    # given a first model of weight 2, whose batch of 10 ms counts as 5 ms
    first = replace(CLAIM, weight=2.0)

    assert order_of([first, urgent(tag_s=0.0045)], 0.0) == [1, 0]
    assert order_of([first, urgent(tag_s=0.0055)], 0.0) == [0, 1]


# Times that are exact in binary: the first batch takes 1 s, one image 0.25 s
EXACT = Claim(tag_s=0.0, weight=1.0, rank_s=5.0, deadline_s=5.0, batch_s=1.0, run_s=1.0, single_s=0.25)


@pytest.mark.parametrize(
    ("first_deadline_s", "deadline_s", "tag_s", "order"),
    [
        (5.0, 0.5, 1.0, [1, 0]),  # its share just lets it run next
        (5.0, 0.25, 0.5, [1, 0]),  # it just makes its deadline when it goes first
        (5.0, 1.25, 0.5, [0, 1]),  # it just makes its deadline behind the first
        (1.25, 0.5, 0.5, [1, 0]),  # the first just makes its own deadline behind it
    ],
)
def test_urgency_at_its_bounds(first_deadline_s: float, deadline_s: float, tag_s: float, order: list[int]) -> None:
    first, other = replace(EXACT, deadline_s=first_deadline_s), replace(EXACT, deadline_s=deadline_s, tag_s=tag_s)

    assert order_of([first, other], 0.0) == order


def test_share_counts_full_batches_and_lateness_counts_runs() -> None:
    # given a first model whose batch of 1 s runs in parts of 0.25 s
    first = replace(EXACT, run_s=0.25)

    assert order_of([first, replace(EXACT, tag_s=1.0, deadline_s=0.375)], 0.0) == [1, 0], "late behind a part"
    assert order_of([first, replace(EXACT, tag_s=1.0, deadline_s=0.625)], 0.0) == [0, 1], "late behind a batch alone"
    assert order_of([first, replace(EXACT, tag_s=1.125, deadline_s=0.375)], 0.0) == [0, 1], "beyond its share"


def test_urgent_model_delays_the_first_by_its_run_and_not_by_its_batch() -> None:
    first = replace(EXACT, deadline_s=0.75)

    assert order_of([first, replace(EXACT, tag_s=0.5, deadline_s=0.5, run_s=0.5)], 0.0) == [1, 0]


def test_heavier_model_pays_less_for_the_same_time() -> None:
    clock, light, heavy = VirtualClock(), Share(1.0), Share(4.0)

    clock.serve(light, 0.2)
    clock.serve(heavy, 0.2)

    assert (light.tag_s, heavy.tag_s) == pytest.approx((0.2, 0.05))


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_idle_model_gets_credit_for_a_burst_and_not_for_the_past(weight: float) -> None:
    clock, busy, idle = VirtualClock(), Share(), Share(weight)
    for _ in range(1000):
        clock.serve(busy, 0.1)

    clock.returns(idle, largest_batch_s=0.02)

    assert busy.tag_s - 0.1 - idle.tag_s == pytest.approx(BURST_BATCHES * 0.02 / weight)


# With the real queue, on simulated time


@pytest.fixture(scope="module")
def alone() -> Ran:
    return SimulatedDevice().run(Flood(times_capacity=0.0))


@pytest.fixture(scope="module")
def flooded() -> Ran:
    return SimulatedDevice().run(Flood(times_capacity=10.0))


def test_flood_at_one_model_at_most_doubles_the_p99_of_the_other(alone: Ran, flooded: Ran) -> None:
    assert percentile(flooded.answered_s["quiet"], 99) <= 2.0 * percentile(alone.answered_s["quiet"], 99)
    assert flooded.refused["quiet"] == 0
    assert flooded.late["quiet"] == 0


def test_flooded_model_gets_what_the_other_leaves(flooded: Ran) -> None:
    assert flooded.images_per_s("flooded") > 150
    assert flooded.late["flooded"] == 0, "what is accepted is answered in time"


def test_more_patient_model_is_not_starved_by_one_with_short_deadlines() -> None:
    run = SimulatedDevice().run(Flood(10.0, quiet_share=0.2, objective_s=0.05, quiet_objective_s=10.0))

    assert run.refused["quiet"] == 0
    assert percentile(run.answered_s["quiet"], 99) < 0.1


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_two_floods_share_the_device_by_weight(weight: float) -> None:
    both = Flood(times_capacity=5.0, quiet_share=5.0, seconds=20.0)

    run = SimulatedDevice({"quiet": weight}).run(both)

    assert run.images_per_s("quiet") / run.images_per_s("flooded") == pytest.approx(weight, rel=0.15)
