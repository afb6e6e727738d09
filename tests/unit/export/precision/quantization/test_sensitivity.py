"""Sensitivity of layers. Promises: measured at the outputs, one layer at a time, and the worst come first."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from saccade.export.precision.quantization.calibrate import activations
from saccade.export.precision.quantization.calibration import observe
from saccade.export.precision.quantization.qdq_trt import FP8_FORMAT, INT8_FORMAT, NumberFormat
from saccade.export.precision.quantization.sensitivity import Sensitivities, sensitivities, switch_of, switchable
from saccade.export.precision.quantization.thresholds import FP8, INT8, UINT8, Grid, Range, minmax_range
from tests.support.residual_network import SIDE, residual_network

IMAGES = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
LAYERS = ("first/Conv", "second/Conv", "last/Conv")


def ranges() -> dict[str, Range]:
    model = residual_network()
    return {name: minmax_range(each) for name, each in observe(model, activations(model), IMAGES).items()}


def measured(chosen: dict[str, Range], budget_s: float = 60.0) -> Sensitivities:
    return sensitivities(residual_network(), LAYERS, chosen, UINT8, INT8_FORMAT, IMAGES, 2, budget_s)


def test_a_layer_whose_activations_are_clipped_is_the_worst() -> None:
    whole = ranges()
    clipped = whole | {"joined": Range(0.0, whole["joined"].high / 8)}

    before, after = measured(whole), measured(clipped)

    assert after.worst_first()[0] == "last/Conv"
    assert after.noise["last/Conv"] > 100 * before.noise["last/Conv"]
    assert after.noise["first/Conv"] == before.noise["first/Conv"]


def test_decibels_are_signal_over_noise_and_absent_for_a_layer_that_was_not_measured() -> None:
    found = Sensitivities({"a": 1e-4, "b": 0.0}, 0.0)

    assert (found.decibels("a"), found.decibels("b"), found.decibels("c")) == (40.0, 120.0, None)


def test_nothing_is_measured_when_it_would_take_too_long_and_the_estimate_is_kept() -> None:
    found = measured(ranges(), budget_s=0.0)

    assert found.noise == {}
    assert found.seconds > 0.0


@pytest.mark.parametrize(("grid", "numbers"), [(UINT8, INT8_FORMAT), (INT8, INT8_FORMAT), (FP8, FP8_FORMAT)])
def test_switched_off_the_graph_is_the_float_network(grid: Grid, numbers: NumberFormat) -> None:
    model = switchable(residual_network(), LAYERS, ranges(), grid, numbers)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def raw(*switched_on: str) -> np.ndarray:
        switches = {switch_of(layer): np.array(layer in switched_on) for layer in LAYERS}
        found: np.ndarray = session.run(["raw"], {"images": IMAGES, **switches})[0]
        return found

    float_session = onnxruntime.InferenceSession(_with_raw_output(), providers=["CPUExecutionProvider"])
    (wanted,) = float_session.run(["raw"], {"images": IMAGES})

    np.testing.assert_allclose(raw(), wanted, rtol=1e-4, atol=1e-3)
    assert np.abs(raw("first/Conv") - raw()).max() > 1e-3


def _with_raw_output() -> bytes:
    return switchable(residual_network(), (), {}, UINT8, INT8_FORMAT).SerializeToString()
