"""Efficiency. Promises: figures follow from counts, one measured batch and a peak that this machine reached."""

from __future__ import annotations

import itertools

import pytest

from saccade.export.precision.effective_precision import LayerPrecision
from saccade.export.precision.efficiency import (
    MeasuredPeak,
    efficiency_of,
    flops_per_byte,
    measured_peak,
    seconds_at_peak,
    shortest_s,
)
from saccade.export.variants import Precision
from saccade.models.contract.manifest import LatencyFigure

PEAK = MeasuredPeak(threads=2, gflops_per_s={"fp32": 100.0, "int8": 400.0})


def layer(precision: Precision, flops: int = 1_000_000_000) -> LayerPrecision:
    return LayerPrecision("layer/Conv", "Conv", "layer", precision, flops, 2_000_000, 500_000, 500_000)


def latency(batch_size: int, images_per_s: float) -> LatencyFigure:
    return LatencyFigure(batch_size=batch_size, p50_ms=1, p90_ms=1, p99_ms=1, images_per_s=images_per_s)


def test_best_batch_counts_against_the_peak_of_each_type() -> None:
    layers = [layer("fp32"), layer("int8", 4_000_000_000)]
    found = efficiency_of(layers, [latency(1, 10.0), latency(8, 25.0), latency(16, 20.0)], PEAK)

    assert (found.gflops_per_image, found.activations_m, found.weights_m) == (5.0, 4.0, 1.0)
    assert found.share_of_flops == {"fp32": 0.2, "int8": 0.8}
    assert found.batch_size == 8
    assert found.achieved_gflops_per_s == 125.0
    assert seconds_at_peak(layers, PEAK) == pytest.approx(0.01 + 0.01)
    assert found.share_of_peak == pytest.approx(0.02 * 25)


def test_weights_are_read_once_per_batch() -> None:
    # 0.5 M weights and 2 M activations of 4 bytes: 2 MB once, 16 MB per image.
    assert flops_per_byte([layer("fp32")], 1) == pytest.approx(1e9 / 18e6)
    assert flops_per_byte([layer("fp32")], 10) == pytest.approx(10e9 / 162e6)
    assert flops_per_byte([layer("int8")], 1) == pytest.approx(4e9 / 18e6)


def test_without_a_device_nothing_is_claimed() -> None:
    counted = efficiency_of([layer("fp16")], [], PEAK)
    without_peak = efficiency_of([layer("fp16")], [latency(1, 10.0)], PEAK)  # no fp16 peak was measured

    assert (counted.achieved_gflops_per_s, counted.share_of_peak, counted.batch_size) == (None, None, None)
    assert counted.gflops_per_image == 1.0
    assert without_peak.share_of_peak is None
    assert efficiency_of([layer("fp32")], [latency(1, 10.0)], None).share_of_peak is None


def test_fastest_of_the_runs_within_the_budget_counts() -> None:
    durations = itertools.chain([3.0, 1.0, 2.0], itertools.repeat(5.0))
    times = [0.0]

    def run() -> None:
        times[0] += next(durations)

    run()
    assert shortest_s(run, 10.0, lambda: times[0]) == 2.0  # the first call inside warms up


def test_peak_is_measured_once_per_process_and_is_no_constant() -> None:
    first = measured_peak(1)

    assert first is measured_peak(1)
    assert first.threads == 1
    assert all(rate > 0.1 for rate in first.gflops_per_s.values())
    assert set(first.gflops_per_s) == {"fp32", "int8"}
