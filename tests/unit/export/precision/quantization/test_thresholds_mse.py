"""Ranges of least squared error. Promises: outliers are clipped where that pays, on the grid that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.export.precision.quantization.calibration import calibrators_of
from saccade.export.precision.quantization.thresholds import (
    BINS,
    FP8,
    INT8,
    UINT8,
    Grid,
    Histogram,
    Range,
    entropy_range,
    minmax_range,
    mse_range,
)
from saccade.export.recipe import CalibrationSpec


def histogram(values: np.ndarray) -> Histogram:
    counts, _ = np.histogram(values, BINS)
    return Histogram(float(values.min()), float(values.max()), counts)


def squared_error(values: np.ndarray, chosen: Range, grid: Grid) -> float:
    return float(np.square(grid.rounded(values, chosen) - values).mean())


@pytest.mark.parametrize("grid", [UINT8, INT8])
def test_a_lone_outlier_is_clipped_and_the_error_gets_smaller(grid: Grid) -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 200_000), 100.0)

    chosen = mse_range(histogram(values), grid)

    assert chosen.magnitude < 90.0
    assert squared_error(values, chosen, grid) < 0.9 * squared_error(values, minmax_range(histogram(values)), grid)


def test_a_dense_tail_is_kept() -> None:
    assert mse_range(histogram(np.random.default_rng(0).uniform(0, 1, 100_000))).high > 0.95


def test_zeros_behind_relu_change_nothing() -> None:
    body = np.abs(np.random.default_rng(0).normal(0, 1, 20_000)) + 0.01
    sparse = np.append(body, np.zeros(1_000_000))

    assert mse_range(histogram(sparse)).high == pytest.approx(mse_range(histogram(body)).high, rel=0.1)


def test_fp8_keeps_outliers_since_its_steps_are_relative() -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 200_000), 20.0)

    assert mse_range(histogram(values), FP8).magnitude > mse_range(histogram(values), INT8).magnitude


def test_grids_round_to_their_own_numbers() -> None:
    values = np.array([-1.0, 0.0, 0.3, 2.0, 9.0])

    np.testing.assert_allclose(UINT8.rounded(values, Range(0.0, 2.55)), [0.0, 0.0, 0.3, 2.0, 2.55])
    np.testing.assert_allclose(INT8.rounded(values, Range(0.0, 1.27)), [-1.0, 0.0, 0.3, 1.27, 1.27])
    np.testing.assert_allclose(FP8.rounded(values, Range(0.0, 448.0)), [-1.0, 0.0, 0.3125, 2.0, 9.0])


def test_entropy_may_clip_further_where_half_the_codes_are_negative() -> None:
    values = histogram(np.append(np.abs(np.random.default_rng(0).normal(0, 1, 50_000)), 100.0))

    assert entropy_range(values, INT8).high < entropy_range(values, UINT8).high


def test_entropy_does_not_compete_where_steps_differ() -> None:
    names = [each.name for each in calibrators_of(CalibrationSpec(minmax=False, percentiles=()), FP8)]

    assert names == ["minmax", "mse"]
