"""int8 for CPUs. Promises held here: a linear layer's sum and its bias stay float; residual sums do not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.precision.quantization.qdq import nodes_to_quantize, observed_tensors, quantized
from saccade.export.precision.quantization.thresholds import Range

IMAGES = np.random.default_rng(3).integers(0, 256, (4, 4, 4, 3), np.uint8)


def residual_layers() -> onnx.ModelProto:
    """Two linear layers with bias over tokens, the second added to what the first read."""
    rng = np.random.default_rng(0)
    constants = {
        "shape": np.array([0, -1, 12], np.int64),
        "scale": np.array([1 / 255], np.float32),
        "first": rng.normal(0, 0.3, (12, 12)).astype(np.float32),
        "second": rng.normal(0, 0.3, (12, 12)).astype(np.float32),
        "bias": rng.normal(size=12).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["planar"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["floats"], name="cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"], name="scale"),
        helper.make_node("Reshape", ["scaled", "shape"], ["tokens"], name="tokens"),
        helper.make_node("MatMul", ["tokens", "first"], ["p1"], name="first"),
        helper.make_node("Add", ["p1", "bias"], ["b1"], name="first_bias"),
        helper.make_node("MatMul", ["b1", "second"], ["p2"], name="second"),
        helper.make_node("Add", ["bias", "p2"], ["b2"], name="second_bias"),
        helper.make_node("Add", ["tokens", "b2"], ["sum"], name="residual"),
        helper.make_node("MatMul", ["sum", "first"], ["raw"], name="head"),
    ]
    raw = helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, ["batch", 4, 12])
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", 4, 4, 3])],
        [raw],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    mark_network_outputs(model, ["raw"])
    model.graph.output.append(raw)
    return model


def test_biases_behind_products_stay_float_and_residual_sums_do_not() -> None:
    names = nodes_to_quantize(residual_layers(), ())

    assert {"first", "second", "head", "residual"} <= set(names)
    assert not {"first_bias", "second_bias"} & set(names)


def test_a_products_sum_is_not_rounded_before_its_bias() -> None:
    model = residual_layers()
    names = nodes_to_quantize(model, ())
    ranges = dict.fromkeys(observed_tensors(model, names), Range(-6.0, 6.0))

    made = quantized(model, names, ranges, has_vnni=True)

    readers = {node.op_type for node in made.graph.node if {"p1", "p2"} & set(node.input)}
    assert readers == {"Add"}
    expected, found = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"images": IMAGES}
        )[0]
        for each in (model, made)
    )
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_nothing_to_quantize_is_refused() -> None:
    with pytest.raises(GraphError, match="no node is left"):
        quantized(residual_layers(), [], {}, has_vnni=True)
