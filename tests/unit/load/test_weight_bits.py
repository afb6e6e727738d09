"""Weights of fewer bits. Promises: so many values are left for each channel, and other layers stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model

from tests.load.weight_bits import rounded, signs, upper_bits

WEIGHTS = np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_upper_bits_leave_so_many_values_for_each_output_channel(bits: int) -> None:
    kept = upper_bits(bits)(WEIGHTS, 0)

    assert all(len(np.unique(row)) <= 2**bits - 1 for row in kept)
    steps = np.abs(WEIGHTS).max(1, keepdims=True) / 127 * 2 ** (8 - bits)
    inside = np.abs(WEIGHTS) < (2 ** (bits - 1) - 1) * steps  # others are clipped
    assert (np.abs(kept - WEIGHTS) <= 0.5 * steps + steps / 2 ** (8 - bits))[inside].all()


def test_signs_keep_the_mean_magnitude_of_an_output_channel() -> None:
    kept = signs(WEIGHTS, 0)

    assert np.array_equal(np.sign(kept), np.sign(WEIGHTS))
    np.testing.assert_allclose(np.abs(kept), np.broadcast_to(np.abs(WEIGHTS).mean(1, keepdims=True), kept.shape))


def test_only_the_named_layers_are_rounded() -> None:
    model = parse_model(
        """<ir_version: 10, opset_import: ["": 20]> g (float[1,4] x) => (float[1,4] z)
        <float[4,4] first, float[4,4] second> {
            [one] y = Gemm<transB=1>(x, first)
            [two] z = Gemm<transB=1>(y, second)
        }"""
    )
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(WEIGHTS[:, :4], name) for name in ("first", "second"))

    changed = rounded(model, {"two"}, signs)

    first, second = (numpy_helper.to_array(tensor) for tensor in changed.graph.initializer)
    assert np.array_equal(first, WEIGHTS[:, :4])
    assert np.array_equal(second, signs(WEIGHTS[:, :4], 0))
    assert numpy_helper.to_array(model.graph.initializer[1]).tolist() == WEIGHTS[:, :4].tolist()
