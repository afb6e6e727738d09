"""Equal scales as a competitor. Promises held here: only what moved is observed again, and no norm means no entry."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.precision.quantization.calibration import observe
from saccade.export.precision.quantization.candidates import Candidate, Workbench
from saccade.export.precision.quantization.equal_scales import EQUAL_SCALES, equal_scales
from saccade.export.precision.quantization.qdq import nodes_to_quantize, observed_tensors
from saccade.export.precision.quantization.quantize import norm_facts, with_equal_scales
from saccade.export.precision.quantization.schemes import FP8_TENSORRT, INT8_CPU, INT8_TENSORRT, QuantizationScheme

CHANNELS = 6
IMAGES = np.random.default_rng(1).integers(0, 256, (16, 2, 2, 3), np.uint8)


def network(*, has_norm: bool = True, has_bias: bool = False) -> onnx.ModelProto:
    """Two tokens of six channels, normalised or not, and a linear layer."""
    rng = np.random.default_rng(0)
    constants = {
        "shape": np.array([0, -1, CHANNELS], np.int64),
        "gain": np.geomspace(0.1, 5.0, CHANNELS).astype(np.float32),
        "offset": np.linspace(-9.0, 9.0, CHANNELS).astype(np.float32),
        "weight": rng.normal(size=(CHANNELS, 4)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["planar"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["floats"], name="cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["tokens"], name="tokens"),
    ]
    if has_norm:
        nodes.append(helper.make_node("LayerNormalization", ["tokens", "gain", "offset"], ["normed"], name="norm"))
    source = "normed" if has_norm else "tokens"
    if has_bias:
        nodes.append(helper.make_node("MatMul", [source, "weight"], ["product"], name="linear"))
        nodes.append(helper.make_node("Add", ["product", "bias"], ["raw"], name="add"))
    else:
        nodes.append(helper.make_node("MatMul", [source, "weight"], ["raw"], name="linear"))
    raw = helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, ["batch", 2, 4])
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", 2, 2, 3])],
        [raw],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    mark_network_outputs(model, ["raw"])
    model.graph.output.append(raw)
    return model


def test_a_network_without_layer_norms_does_not_compete() -> None:
    model = network(has_norm=False)

    assert equal_scales(model, {}, IMAGES, 8, is_symmetric=False) is None


def test_histograms_are_those_of_the_changed_network() -> None:
    for has_bias in (False, True):
        model = network(has_bias=has_bias)
        before = observe(model, observed_tensors(model, nodes_to_quantize(model, ())), IMAGES)

        found = equal_scales(model, before, IMAGES, 8, is_symmetric=False)

        assert found is not None
        assert found.norms == 1
        names = nodes_to_quantize(found.model, ())
        expected = observe(found.model, observed_tensors(found.model, names), IMAGES)
        assert "linear" in names
        for name, histogram in expected.items():
            assert np.isclose(found.histograms[name].low, histogram.low, rtol=1e-4, atol=1e-4), name
            assert np.isclose(found.histograms[name].high, histogram.high, rtol=1e-4, atol=1e-4), name
        assert before["normed"].high != found.histograms["normed"].high


def bench(scheme: QuantizationScheme, *, is_asked: bool = True, has_norm: bool = True) -> Workbench:
    model = network(has_norm=has_norm)
    calibration = SimpleNamespace(layer_norm_reparametrisation=is_asked)
    recipe = SimpleNamespace(calibration=calibration, qualify=SimpleNamespace(evaluate_batch_size=8))
    context: Any = SimpleNamespace(recipe=recipe)
    tuning: Any = None
    names = observed_tensors(model, nodes_to_quantize(model, ()))
    return Workbench(context, scheme, model, observe(model, names, IMAGES), tuning, Path())


@pytest.mark.parametrize("scheme", [INT8_CPU, INT8_TENSORRT])
def test_integer_variants_compete_with_a_changed_network(scheme: QuantizationScheme) -> None:
    plain = bench(scheme)

    (equal,) = with_equal_scales(plain, IMAGES)

    assert equal.label == EQUAL_SCALES
    assert equal.model != plain.model


def test_nothing_competes_where_it_is_not_asked_for_or_cannot_help() -> None:
    for alone in (bench(FP8_TENSORRT), bench(INT8_CPU, is_asked=False), bench(INT8_CPU, has_norm=False)):
        assert with_equal_scales(alone, IMAGES) == []


def test_the_detail_says_which_was_taken_and_both_figures() -> None:
    plain = bench(INT8_CPU)
    (equal,) = with_equal_scales(plain, IMAGES)
    tried = [
        (plain, [Candidate("minmax", 0.8, Path()), Candidate("mse", 0.9, Path())]),
        (equal, [Candidate("minmax+equal-scales", 0.95, Path())]),
    ]

    assert norm_facts(tried, equal) == {
        "layer_norm_scales": "equal",
        "plain_scales_tuning_metric": 0.9,
        "equal_scales_tuning_metric": 0.95,
    }
    assert norm_facts(tried, plain)["layer_norm_scales"] == "plain"
    assert norm_facts(tried[:1], plain) == {}
