"""Timing, parity and hostile inputs. Promises: pure arithmetic on answers and durations, with a clock of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.export.qualification.benchmark import (
    cpu_name,
    latency_figure,
    seconds_per_run,
    speed_ratio,
    usable_threads,
)
from saccade.export.qualification.parity import answer_difference, hostile_figure, hostile_images, relative_l2
from saccade.models.contract.specs import Task, TensorSpec


class FakeClock:
    """Time that passes only when a run says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_compared_runs_take_turns_and_alternate_who_goes_first() -> None:
    clock = FakeClock()
    order: list[str] = []

    def run(name: str, seconds: float) -> None:
        order.append(name)
        clock.now += seconds

    found = seconds_per_run([lambda: run("a", 1.0), lambda: run("b", 2.0)], 5, 1e9, clock)

    assert order[4:10] == ["a", "b", "b", "a", "a", "b"]
    np.testing.assert_allclose(found, [[1.0, 2.0]] * 5)


def test_timing_stops_at_its_budget_after_a_minimum_of_turns() -> None:
    clock = FakeClock()

    def slow() -> None:
        clock.now += 10.0

    assert len(seconds_per_run([slow], 100, 1.0, clock)) == 5
    assert len(seconds_per_run([slow], 100, 80.0, clock)) == 8


def test_latency_figure_counts_images_of_the_batch() -> None:
    figure = latency_figure([[0.004]] * 10, 8)

    assert (figure.p50_ms, figure.p99_ms, figure.images_per_s) == (4.0, 4.0, 2000.0)


def test_latency_figure_has_the_interval_of_its_median_over_rounds() -> None:
    figure = latency_figure([[0.001 * count, 0.001 * count] for count in range(1, 11)], 1)
    few = latency_figure([[0.004]] * 5, 1)

    assert (figure.p50_low_ms, figure.p50_ms, figure.p50_high_ms) == (2.0, 5.5, 9.0)
    assert (few.p50_low_ms, few.p50_high_ms) == (None, None)


def test_speed_ratio_is_not_moved_by_disturbed_turns() -> None:
    seconds = np.tile([0.010, 0.011], (40, 1))
    seconds[::4, 0] = 0.5

    figure = speed_ratio(seconds, 1)

    assert figure.ratio == pytest.approx(1.1)
    assert figure.deploy_images_per_s == pytest.approx(100.0)


def test_cpu_is_named_with_its_vector_extension(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: Chip 9\nflags\t\t: avx2 avx512f avx512_vnni\n")

    assert cpu_name(tmp_path / "cpuinfo") == "Chip 9 (avx512_vnni)"
    assert cpu_name(tmp_path / "absent") == "unknown"
    assert usable_threads(3) == 3
    assert usable_threads(0) >= 1


def test_values_that_are_not_finite_are_infinitely_far() -> None:
    assert relative_l2(np.array([np.nan]), np.array([1.0])) == float("inf")
    gap = answer_difference(
        [np.array([[np.inf]]), np.array([[1]])], [np.array([[1.0]]), np.array([[1]])], Task.CLASSIFY
    )
    assert gap.relative_l2 is None


def test_swapped_ids_of_tiny_scores_do_not_count() -> None:
    scores = np.array([[0.9, 1e-6, 1e-6]], np.float32)

    gap = answer_difference([scores, np.array([[4, 1, 2]])], [scores, np.array([[4, 2, 1]])], Task.CLASSIFY)
    wrong = answer_difference([scores, np.array([[3, 1, 2]])], [scores, np.array([[4, 1, 2]])], Task.CLASSIFY)

    assert gap.id_disagreement == 0.0
    assert wrong.id_disagreement == 1.0


def test_ids_of_equal_scores_may_change_places_and_others_may_not() -> None:
    scores = np.array([[0.4, 0.2, 0.2]], np.float32)

    expected = [scores, np.array([[4, 2, 1]])]
    tied = [answer_difference([scores, np.array([ids])], expected, Task.CLASSIFY) for ids in ([4, 1, 2], [4, 9, 2])]
    wrong = [answer_difference([scores, np.array([ids])], expected, Task.CLASSIFY) for ids in ([2, 4, 1], [9, 2, 1])]

    assert [each.id_disagreement for each in tied] == [0.0, 0.0]
    assert all(each.id_disagreement > 0.3 for each in wrong)


def test_detections_are_paired_before_they_are_compared() -> None:
    boxes = np.array([[[0, 0, 9, 9], [20, 20, 30, 30], [0, 0, 0, 0]]], np.float32)
    scores = np.array([[0.8, 0.8, 0.01]], np.float32)
    class_ids = np.array([[1, 2, 0]], np.int32)
    counts = np.array([3], np.int32)
    turned = [1, 0, 2]
    found = [boxes[:, turned], scores[:, turned], class_ids[:, turned], counts]

    gap = answer_difference(found, [boxes, scores, class_ids, counts], Task.DETECT)

    assert (gap.relative_l2, gap.id_disagreement) == (0.0, 0.0)


@pytest.mark.parametrize(("last", "is_equal"), [(0.4 + 2e-6, True), (0.41, False)])
def test_rows_that_tie_where_a_full_answer_is_cut_may_be_others(last: float, is_equal: bool) -> None:
    boxes = np.array([[[0, 0, 9, 9], [20, 20, 30, 30], [50, 0, 60, 9]]], np.float32)
    scores = np.array([[0.8, last, 0.4]], np.float32)
    class_ids, counts = np.array([[1, 2, 2]], np.int32), np.array([3], np.int32)
    other = boxes.copy()
    other[0, 1] = [90, 90, 99, 99]

    gap = answer_difference([other, scores, class_ids, counts], [boxes, scores, class_ids, counts], Task.DETECT)

    assert (gap.relative_l2 == 0.0) == is_equal


def test_mask_difference_is_the_share_of_pixels() -> None:
    mask = np.zeros((1, 4, 4), np.uint8)
    other = mask.copy()
    other[0, 0, 0] = 1

    assert answer_difference([other], [mask], Task.SEGMENT).id_disagreement == pytest.approx(1 / 16)


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (TensorSpec(name="scores", dtype="float32", shape=(1,)), 0.5, 1.5),
        (TensorSpec(name="class_ids", dtype="int32", shape=(1,)), 9, 10),
        (TensorSpec(name="mask", dtype="uint8", shape=(1, 1)), 0, 11),
        (TensorSpec(name="counts", dtype="int32", shape=()), 0, -1),
    ],
)
def test_hostile_answers_outside_their_range_are_noticed(spec: TensorSpec, good: float, bad: float) -> None:
    assert hostile_figure("noise", [np.array([[good]])], [spec], 10).is_in_range
    assert not hostile_figure("noise", [np.array([[bad]])], [spec], 10).is_in_range
    assert not hostile_figure("noise", [np.array([[np.nan]])], [spec], 10).is_finite


def test_hostile_images_are_the_models_input() -> None:
    images = hostile_images(6, 8)

    assert {name: array.shape for name, array in images.items()} == dict.fromkeys(images, (1, 6, 8, 3))
    assert {array.dtype for array in images.values()} == {np.dtype(np.uint8)}
