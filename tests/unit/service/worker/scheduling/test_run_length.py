"""How long a run may be beside other models, and on simulated time what that gives them and costs the long one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from saccade.service.worker.scheduling.latency_model import LatencyModel
from saccade.service.worker.scheduling.run_length import SHORT_RUN_S, run_rows
from tests.support.sharing_patterns import DEVICES, LINEAR_S, PATTERNS, UNCERTAIN, compare_shared
from tests.support.simulated_batches import Load, bursts, poisson, serve, with_full_runs
from tests.support.simulated_device import percentile

LOSS = 0.02  # of throughput, and of p99
LIGHT_ANSWERED = {  # share of the small requests
    "rows of one length": 0.99,
    "rows of one length, noisy": 0.99,
    "rows of one length, two in flight": 0.93,  # two rows may be ahead, 240 ms of the 250 that it allows
    "1.5 % of a row per run": 0.99,
    "slower in batches": 0.99,
}


def model_of(run_s: Mapping[int, float], runs: int = 15) -> LatencyModel:
    model = LatencyModel()
    for size, seconds in run_s.items():
        for _ in range(runs):
            model.observe(size, seconds)
    return model


@pytest.mark.parametrize(
    ("run_s", "rows", "chosen"),
    [
        ({1: 0.12, 2: 0.24, 8: 0.96}, 8, 1),  # nothing is gained by eight at once
        ({1: 0.12, 2: 0.24, 8: 0.96}, 2, 1),
        ({1: 0.12, 2: 0.24, 8: 0.96}, 1, 1),
        ({1: 0.12, 2: 0.24, 8: 0.93}, 8, 8),  # 3 % more rows per second
        ({1: 0.12, 2: 0.24, 8: 0.93}, 2, 1),
        ({1: 0.12, 8: 0.95}, 8, 1),  # 1 % more
        ({1: 0.02, 2: 0.04, 4: 0.08, 8: 0.16}, 8, 4),  # the largest short run
        ({1: 0.02, 2: 0.04, 4: 0.08, 8: 0.15}, 8, 8),
        ({1: 0.01, 8: SHORT_RUN_S}, 8, 8),  # short itself, whatever one alone takes
        ({1: 0.12, 8: 1.2}, 8, 1),  # eight at once are slower
        ({1: 0.09, 8: 0.11}, 8, 8),
        ({1: 0.5}, 1, 1),
    ],
)
def test_a_long_run_is_cut_where_it_gains_nothing(run_s: dict[int, float], rows: int, chosen: int) -> None:
    assert run_rows(model_of(run_s), rows, tuple(run_s)) == chosen


def test_nothing_is_cut_before_anything_is_measured() -> None:
    assert run_rows(LatencyModel(), 8, (1, 8)) == 8


def test_a_size_that_never_ran_is_not_taken_for_a_fast_one() -> None:
    assert run_rows(model_of({1: 0.2}), 8, (1, 8)) == 1


def test_a_full_run_is_faster_only_if_most_of_them_are() -> None:
    # given runs of one that take 120 or 140 ms, and full ones of eight times 110 ms, a third of which take longer
    ones, mixed = LatencyModel(), [0.88, 0.88, 0.96]
    for number in range(15):
        ones.observe(1, 0.14 if number % 2 else 0.12)
        ones.observe(8, mixed[number % 3])

    assert run_rows(ones, 8, (1, 8)) == 1
    for _ in range(15):
        ones.observe(8, 0.88)
    assert run_rows(ones, 8, (1, 8)) == 8


def test_the_first_run_of_a_warm_up_which_allocates_memory_does_not_make_a_size_slow() -> None:
    model = LatencyModel()
    for size, seconds in {1: 0.12, 8: 0.5}.items():
        for factor in (3.0, 1.0, 1.0):
            model.observe(size, factor * seconds)

    for _ in range(12):
        assert run_rows(model, 8, (1, 8)) == 1, "a warm-up of short runs may have met a slow moment"
        model.observe(1, 0.12)
    assert run_rows(model, 8, (1, 8)) == 8


def test_full_runs_are_tried_now_and_then_and_win_once_they_are_faster() -> None:
    # given full runs that were no faster in the warm-up, and are since
    true_s = {1: 0.12, 2: 0.13}
    model, taken = model_of({1: 0.12, 2: 0.24}, runs=3), []
    for _ in range(6000):
        taken.append(run_rows(model, 2, (1, 2)))
        model.observe(taken[-1], true_s[taken[-1]])

    assert taken.index(2) == pytest.approx(200 * 0.24 / 0.12, abs=1), "half a percent of the time"
    assert taken[-1000:].count(2) >= 995, "and short ones are tried"


def test_short_runs_are_tried_now_and_then_and_win_once_they_are_as_fast() -> None:
    true_s = {1: 0.12, 8: 0.96}
    model, taken = model_of({1: 0.2, 8: 0.96}), []
    for _ in range(3000):
        taken.append(run_rows(model, 8, (1, 8)))
        model.observe(taken[-1], true_s[taken[-1]])

    assert taken.index(1) == pytest.approx(200 - 15, abs=1), "fifteen full runs came after the last short one before"
    assert taken.count(8) < 400
    assert taken[-1600:].count(1) >= 1599


# Two models on one device, on simulated time


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_small_requests_are_answered_beside_long_runs_and_these_lose_nothing(device: str, pattern: str) -> None:
    before, after = compare_shared(DEVICES[device], PATTERNS[pattern], seeds=2)

    assert after.heavy_per_s >= (1 - LOSS) * before.heavy_per_s
    assert after.heavy_p99_s <= (1 + LOSS) * before.heavy_p99_s
    assert after.light_answered >= LIGHT_ANSWERED.get(device, before.light_answered - 0.01)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_uncertain_gains_cost_no_more_than_they_are(pattern: str) -> None:
    before, after = compare_shared(UNCERTAIN, PATTERNS[pattern])

    assert after.heavy_per_s >= 0.95 * before.heavy_per_s
    assert after.light_answered >= before.light_answered


def test_refusals_were_the_full_runs_doing_and_not_of_the_order_or_of_wrong_estimates() -> None:
    # given tiles all the time, and two small requests a second that allow 250 ms
    def served() -> tuple[float, dict[str, int]]:
        light = Load(poisson(2.0, 300, 7), objective_s=0.25, run_s={1: 0.002}, has_door=True)
        _, found = serve(DEVICES["rows of one length"], [Load(clients=16, answers=1200, objective_s=1e3), light])
        assert percentile(found.waits_s, 100) <= 0.25, "whoever is accepted is answered in time"
        return len(found.waits_s) / 300, dict(found.refused)

    with with_full_runs():
        answered, refused = served()
    assert answered < 0.25
    assert refused.get("device", 0) == 0, "refused at the door or in line, for a run that went on too long"
    answered, _ = served()
    assert answered >= 0.99


def test_a_row_that_takes_longer_than_the_deadline_cannot_be_cut() -> None:
    long_s = {size: 5 * seconds for size, seconds in LINEAR_S.items()}
    light = Load(poisson(1.0, 200, 7), objective_s=0.25, run_s={1: 0.002}, has_door=True)

    tiles, found = serve(
        DEVICES["rows of one length"], [Load(clients=16, answers=400, run_s=long_s, objective_s=1e3), light]
    )

    assert tiles.rows / tiles.device_s == pytest.approx(1 / 0.6, rel=0.01)
    assert len(found.waits_s) / 200 < 0.6, "another device for one of them is what helps"


def test_flood_of_small_requests_leaves_tiles_as_much_as_before() -> None:
    def tiles_p99_s() -> float:
        tiles = Load(bursts(2.5, 60, 3, lambda numbers: numbers.randint(8, 16)), objective_s=1e3)
        flood = Load(poisson(700.0, 16_000, 7), objective_s=0.25, run_s={1: 0.002, 2: 0.003, 4: 0.005}, has_door=True)
        return serve(DEVICES["rows of one length"], [tiles, flood])[0].p99_s

    with with_full_runs():
        before_s = tiles_p99_s()
    assert tiles_p99_s() <= (1 + LOSS) * before_s
