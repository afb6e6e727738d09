"""Calibration. Promises: bad data is refused with the reason, and ranges follow the histogram."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from saccade.export.data.datasets import ensure_calibration_allowed
from saccade.export.data.digit_data import ensure_instances_disjoint
from saccade.export.data.image_split import ImageSplit, Split
from saccade.export.errors import CalibrationTooSmall, DataRefused
from saccade.export.precision.quantization.calibration import calibrators_of, observation_parts, observe, ranges_of
from saccade.export.precision.quantization.candidates import Candidate, best_candidate
from saccade.export.precision.quantization.thresholds import (
    BINS,
    Histogram,
    entropy_range,
    minmax_range,
    percentile_range,
)
from saccade.export.recipe import CalibrationSpec


def split(name: Split, keys: range) -> ImageSplit:
    digests = tuple(hashlib.sha256(str(key).encode()).hexdigest() for key in keys)
    return ImageSplit(name, [], np.zeros((len(digests), 2, 2, 3), np.uint8), [], digests)


def histogram(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Histogram:
    counts, _ = np.histogram(values, BINS)
    return Histogram(float(values.min()), float(values.max()), counts)


def test_enough_separate_images_are_allowed() -> None:
    ensure_calibration_allowed(split("calibration", range(40)), [split("test", range(40, 80))], 32)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(CalibrationTooSmall, match="8 images, the recipe asks for at least 32"):
        ensure_calibration_allowed(split("calibration", range(8)), [], 32)


def test_repeated_images_do_not_count() -> None:
    one = split("calibration", range(20))
    doubled = ImageSplit("calibration", [], one.images, [], one.image_sha256 * 2)

    with pytest.raises(CalibrationTooSmall, match="20 different ones among 40 images"):
        ensure_calibration_allowed(doubled, [], 32)


def test_images_shared_with_the_test_split_are_refused() -> None:
    with pytest.raises(DataRefused, match="5 calibration images are also in split 'test'"):
        ensure_calibration_allowed(split("calibration", range(40)), [split("test", range(35, 80))], 32)


def test_digits_of_a_split_never_occur_in_another() -> None:
    ensure_instances_disjoint("calibration", "test")
    with pytest.raises(DataRefused, match="digits occur in both"):
        ensure_instances_disjoint("test", "test")


def test_minmax_keeps_everything_and_contains_zero() -> None:
    found = minmax_range(histogram(np.linspace(2.0, 5.0, 1000)))

    assert (found.low, found.high) == (0.0, 5.0)


def test_percentile_clips_a_lone_outlier() -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 100_000), 1000.0)

    found = percentile_range(histogram(values), 99.9)

    assert found.high < 10.0
    assert percentile_range(histogram(values), 100.0).high == pytest.approx(1000.0)


def test_entropy_clips_a_lone_outlier_and_keeps_a_dense_tail() -> None:
    rng = np.random.default_rng(0)
    body = np.abs(rng.normal(0, 1, 100_000))

    assert entropy_range(histogram(np.append(body, 100.0))).high < 20.0
    assert entropy_range(histogram(rng.uniform(0, 1, 100_000))).high > 0.95


def test_zeros_behind_relu_do_not_pull_the_entropy_range_down() -> None:
    body = np.abs(np.random.default_rng(0).normal(0, 1, 20_000))
    with_zeros = np.append(body, np.zeros(1_000_000))

    assert entropy_range(histogram(with_zeros)).high > 2.5


def test_observed_histograms_hold_every_value_of_every_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    shape = ["batch", 4, 4, 3]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Neg", ["floats"], ["answer"]),
        ],
        "graph",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("answer", onnx.TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    found = observe(model, ["floats"], images)["floats"]

    assert (found.low, found.high) == (float(images.min()), float(images.max()))
    assert found.counts.sum() == images.size


def chain(count: int, side: int) -> onnx.ModelProto:
    """Images through `count` negations; every activation has side * side * 3 floats per image."""
    shape = ["batch", side, side, 3]
    names = ["floats", *(f"t{index}" for index in range(count))]
    nodes = [helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT)]
    nodes += [helper.make_node("Neg", [before], [after]) for before, after in itertools.pairwise(names)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_observation_fits_into_memory_by_smaller_batches_then_by_parts() -> None:
    model, names = chain(3, side=10), ["t0", "t1", "t2"]
    image_bytes = 10 * 10 * 3 * 4

    everything = observation_parts(model, names, memory_bytes=100 * image_bytes)
    small_batch = observation_parts(model, names, memory_bytes=7 * image_bytes)
    parts = observation_parts(model, names, memory_bytes=2 * image_bytes)

    assert [(part.tensors, part.batch_size) for part in everything] == [(("t0", "t1", "t2"), 8)]
    assert [(part.tensors, part.batch_size) for part in small_batch] == [(("t0", "t1", "t2"), 2)]
    assert [(part.tensors, part.batch_size) for part in parts] == [(("t0", "t1"), 1), (("t2",), 1)]


def test_every_calibrator_of_the_recipe_competes() -> None:
    spec = CalibrationSpec(percentiles=(99.9, 99.99))
    names = [calibrator.name for calibrator in calibrators_of(spec)]

    assert names == ["minmax", "entropy", "percentile-99.9", "percentile-99.99", "mse"]
    lows = {
        calibrator.name: ranges_of({"t": histogram(np.linspace(-1, 1, 1000))}, calibrator)["t"].low
        for calibrator in calibrators_of(spec)
    }
    assert lows["minmax"] == -1.0


def test_logits_keep_their_extremes_whatever_the_calibrator() -> None:
    (percentile,) = calibrators_of(CalibrationSpec(minmax=False, entropy=False, percentiles=(90.0,), mse=False))
    same = histogram(np.linspace(-1, 1, 1000))

    ranges = ranges_of({"inside": same, "logits": same}, percentile, unclipped={"logits"})

    assert ranges["inside"].high < 0.95
    assert ranges["logits"].high == 1.0


def test_best_tuning_metric_wins_and_the_earlier_of_equals() -> None:
    candidates = [Candidate("minmax", 0.9, Path("a")), Candidate("entropy", 0.95, Path("b"))]
    tied = [*candidates, Candidate("percentile-99.9", 0.95, Path("c"))]

    assert best_candidate(tied).calibrator == "entropy"
