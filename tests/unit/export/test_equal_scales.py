"""Equal scales as a competitor. Promises held here: only what moved is observed again, and no norm means no entry."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.calibration import observe
from export.equal_scales import equal_scales
from export.onnx_graph import mark_network_outputs
from export.quantization import nodes_to_quantize, observed_tensors

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
