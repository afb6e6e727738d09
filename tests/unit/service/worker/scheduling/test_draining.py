"""How long a queue takes, and when a padded run is the better one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.worker.scheduling.draining import drain_s, filled_s, padded_size, reach_s
from saccade.service.worker.scheduling.latency_model import LatencyModel

H200_S = {1: 0.00092, 8: 0.00195, 32: 0.0035, 64: 0.0055, 128: 0.0095}
TWO_CORES_S = {1: 0.012, 2: 0.024, 4: 0.046, 8: 0.090}


def model_of(run_s: Mapping[int, float]) -> LatencyModel:
    model = LatencyModel()
    for size, seconds in run_s.items():
        model.observe(size, seconds)
    return model


@pytest.mark.parametrize(
    ("waiting", "padded"),
    [
        (1, None),
        (3, None),  # one that came meanwhile would wait for two runs of 1.95 ms instead of four of 0.92 ms
        (4, 8),
        (7, 8),
        (8, None),
        (14, None),  # 4.0 answers per millisecond; batches of eight give 4.1
        (15, None),  # two batches of eight serve one more in less time than a padded one and another run
        (23, 32),
        (31, 32),
        (70, None),  # a full 64 first, and only the rest is padded
        (128, None),
        (200, None),
    ],
)
def test_seven_of_eight_are_padded_on_a_gpu_and_what_gains_little_is_not(waiting: int, padded: int | None) -> None:
    assert padded_size(model_of(H200_S), waiting, tuple(H200_S)) == padded


@pytest.mark.parametrize("waiting", range(1, 20))
def test_nothing_is_padded_where_time_grows_with_the_rows(waiting: int) -> None:
    assert padded_size(model_of(TWO_CORES_S), waiting, tuple(TWO_CORES_S)) is None


def test_nothing_is_padded_for_networks_whose_images_run_alone() -> None:
    assert padded_size(model_of({1: 0.005}), 7, (1,)) is None


def test_nothing_is_padded_while_nothing_is_measured() -> None:
    assert padded_size(LatencyModel(), 7, (1, 8)) is None


@pytest.mark.parametrize(
    ("run_s", "waiting", "padded"),
    [
        # One that misses the run: 4 s alone behind it, or 5 s as one of four behind the filled four.
        ({1: 4.0, 4: 5.0, 8: 6.0}, 7, 8),  # done after 10 s either way
        ({1: 4.0, 4: 5.0, 8: 7.0}, 7, None),  # done after 11 s instead of 10 s
        # One that joins the next padded run: done after 22 s either way, or after 24 s instead of 22 s.
        ({1: 4.0, 4: 10.0, 8: 11.0}, 6, 8),
        ({1: 4.0, 4: 10.0, 8: 12.0}, 6, None),
    ],
)
def test_padding_makes_no_request_late_that_misses_the_run(
    run_s: dict[int, float], waiting: int, padded: int | None
) -> None:
    assert padded_size(model_of(run_s), waiting, tuple(run_s)) == padded


@given(run_s=st.lists(st.floats(0.001, 0.1, allow_subnormal=False), min_size=5, max_size=5), waiting=st.integers(1, 40))
def test_padded_run_ends_before_any_sequence_of_filled_batches(run_s: list[float], waiting: int) -> None:
    sizes = (1, 2, 4, 8, 32)
    model = model_of(dict(zip(sizes, run_s, strict=True)))
    best_s = [0.0]
    for count in range(1, waiting + 1):
        best_s.append(min(best_s[count - size] + model.batch_s(size) for size in sizes if size <= count))

    padded = padded_size(model, waiting, sizes)

    if padded is not None:
        assert padded > waiting
        assert model.batch_s(padded) <= best_s[waiting] + 1e-9


def test_drain_time_counts_the_largest_batches_first() -> None:
    model = model_of({1: 0.1, 4: 0.2})

    assert drain_s(model, 9, (1, 4)) == pytest.approx(2 * 0.2 + 0.1)
    assert drain_s(model, 0, (1, 4)) == 0.0


def test_drain_time_counts_a_padded_run_for_what_is_left() -> None:
    model = model_of(H200_S)

    assert drain_s(model, 128 + 64 + 7, tuple(H200_S)) == pytest.approx(0.0095 + 0.0055 + 0.00195)
    assert filled_s(model, 128 + 64 + 7, tuple(H200_S)) == pytest.approx(0.0095 + 0.0055 + 7 * 0.00092)
    assert [filled_s(model, size, tuple(H200_S)) for size in H200_S] == list(H200_S.values())


@pytest.mark.parametrize(
    ("position", "seconds"),
    [
        (0, 0.1),
        (1, 0.2),  # with two others behind it, or as a second run
        (3, 0.2),
        (4, 0.2 + 0.1),
        (9, 0.2 + 0.2 + 0.2),
    ],
)
def test_place_in_line_says_when_its_run_ends(position: int, seconds: float) -> None:
    assert reach_s(model_of({1: 0.1, 4: 0.2}), position, (1, 4)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("run_s", "position", "seconds"),
    [
        ({1: 4.0, 4: 5.0, 8: 7.0}, 9, 7.0 + 5.0),  # behind a full eight, as one of four
        ({1: 4.0, 4: 20.0, 8: 24.0}, 1, 4.0 + 4.0),  # two runs alone end before a run of four
    ],
)
def test_place_in_line_counts_the_faster_of_both_ways(run_s: dict[int, float], position: int, seconds: float) -> None:
    assert reach_s(model_of(run_s), position, tuple(run_s)) == pytest.approx(seconds)
