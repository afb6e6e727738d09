"""Effective precision. Promises: a layer counts only when both its sides have the type, whatever the file is called."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.plans.tensorrt_from_onnx import NetworkLayer, find_tensorrt
from saccade.export.precision.effective_precision import (
    dtype_counts,
    dtype_table,
    layer_precisions,
    layers_of_network,
    network_precisions,
    precision_mismatches,
    share_in,
)

needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")
ELEMENT = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def float_weight(kind: int, shape: tuple[int, ...], name: str) -> onnx.TensorProto:
    values = np.random.default_rng(0).normal(0, 1, shape)
    return helper.make_tensor(name, kind, shape, values.ravel().tolist())


def network(precision: str = "fp32") -> onnx.ModelProto:
    """Bytes, a 3x3 convolution to 4 maps of 6 x 6, a matrix product to 5 features."""
    kind = ELEMENT[precision]
    nodes = [
        helper.make_node("Transpose", ["images"], ["planar"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["floats"], name="cast", to=kind),
        helper.make_node("Conv", ["floats", "w"], ["maps"], name="stem/Conv"),
        helper.make_node("Flatten", ["maps"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "m"], ["features"], name="head/Gemm"),
        helper.make_node("Cast", ["features"], ["answer"], name="back", to=TensorProto.FLOAT),
    ]
    constants = [float_weight(kind, (4, 3, 3, 3), "w"), float_weight(kind, (144, 5), "m")]
    return model_of(nodes, constants)


def quantized(data_type: int = TensorProto.INT8, weight_type: int = TensorProto.INT8) -> onnx.ModelProto:
    """The same network with Q/DQ: activations moved behind their Dequantize, weights stored quantized."""
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        helper.make_tensor("data_zero", data_type, (), [0]),
        helper.make_tensor("weight_zero", weight_type, (), [0]),
        helper.make_tensor("wq", weight_type, (4, 3, 3, 3), [1] * 108),
        helper.make_tensor("mq", weight_type, (144, 5), [1] * 720),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["bytes"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["bytes", "scale", "data_zero"], ["q0"], name="q0"),
        helper.make_node("DequantizeLinear", ["q0", "scale", "data_zero"], ["d0"], name="d0"),
        helper.make_node("Transpose", ["d0"], ["floats"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["wq", "scale", "weight_zero"], ["w"], name="dw"),
        helper.make_node("Conv", ["floats", "w"], ["maps"], name="stem/Conv"),
        helper.make_node("QuantizeLinear", ["maps", "scale", "data_zero"], ["q1"], name="q1"),
        helper.make_node("DequantizeLinear", ["q1", "scale", "data_zero"], ["d1"], name="d1"),
        helper.make_node("Flatten", ["d1"], ["flat"], name="flatten"),
        helper.make_node("DequantizeLinear", ["mq", "scale", "weight_zero"], ["m"], name="dm"),
        helper.make_node("Gemm", ["flat", "m"], ["answer"], name="head/Gemm"),
    ]
    return model_of(nodes, constants)


def model_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "graph", [images], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize(("precision", "weight_bytes"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_float_layers_have_the_type_of_their_tensors_and_are_counted_per_image(
    precision: str, weight_bytes: int
) -> None:
    stem, head = layer_precisions(network(precision))

    assert (stem.node, stem.op, stem.layer, stem.precision) == ("stem/Conv", "Conv", "stem", precision)
    assert (stem.flops, stem.activations, stem.weights) == (2 * 4 * 36 * 27, 4 * 36, 108)
    assert (head.flops, head.activations, head.weight_bytes) == (2 * 144 * 5, 5, 720 * weight_bytes)
    assert share_in((stem, head), precision) == 1.0  # type: ignore[arg-type]  # a parameter, not a literal


def test_quantized_layers_are_int8_though_activations_are_moved_behind_their_dequantize() -> None:
    layers = layer_precisions(quantized())

    assert [layer.precision for layer in layers] == ["int8", "int8"]
    assert [layer.weight_bytes for layer in layers] == [108, 720]
    assert [layer.precision for layer in layer_precisions(quantized(TensorProto.FLOAT8E4M3FN, 17))] == ["fp8", "fp8"]


def test_layer_with_one_quantized_side_is_float() -> None:
    mixed = layer_precisions(quantized(TensorProto.INT8, TensorProto.FLOAT8E4M3FN))
    weights_only = quantized()
    convolution = next(node for node in weights_only.graph.node if node.op_type == "Conv")
    transpose = next(node for node in weights_only.graph.node if node.op_type == "Transpose")
    transpose.input[0] = "bytes"
    data_only = quantized()
    next(node for node in data_only.graph.node if node.op_type == "Conv").input[1] = "w_float"
    data_only.graph.initializer.append(float_weight(TensorProto.FLOAT, (4, 3, 3, 3), "w_float"))

    assert convolution.name == "stem/Conv"
    assert [layer.precision for layer in mixed] == ["fp32", "fp32"]
    assert [layer.precision for layer in layer_precisions(weights_only)] == ["fp32", "int8"]
    assert [layer.precision for layer in layer_precisions(data_only)] == ["fp32", "int8"]


def test_arithmetic_between_dequantize_and_product_makes_it_float() -> None:
    model = quantized()
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    relu = helper.make_node("Relu", ["d1"], ["positive"], name="relu")
    flatten.input[0] = "positive"
    model.graph.node.insert(list(model.graph.node).index(flatten), relu)

    layers = layer_precisions(model)

    assert [layer.precision for layer in layers] == ["int8", "fp32"]
    assert share_in(layers, "int8") == pytest.approx(layers[0].flops / (layers[0].flops + layers[1].flops))


def test_answer_heads_own_products_are_not_the_networks() -> None:
    model = network()
    mark_network_outputs(model, ["maps"])

    assert [layer.node for layer in layers_of_network(model, layer_precisions(model))] == ["stem/Conv"]


def test_table_names_every_node_and_a_lying_type_does_not_count() -> None:
    model = network("fp16")
    model.graph.value_info.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT16, None))
    table = dtype_table(model)

    assert [row.node for row in table] == [node.name for node in model.graph.node]
    assert dtype_counts(table) == {"float": 1, "float16": 4, "uint8": 1}

    silent = network("fp32")
    silent.graph.value_info.append(helper.make_tensor_value_info("floats", TensorProto.FLOAT16, None))
    assert share_in(layer_precisions(silent), "fp16") == 0.0


def test_layer_of_unknown_size_is_refused_by_name() -> None:
    model = network()
    dimension = model.graph.input[0].type.tensor_type.shape.dim[1]
    dimension.dim_param = "height"

    with pytest.raises(GraphError, match="'stem/Conv'"):
        layer_precisions(model)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_network_that_tensorrt_parses_has_the_files_types(precision: str) -> None:
    model = network(precision)
    parsed = network_precisions(model.SerializeToString())

    assert parsed is not None
    assert precision_mismatches(layer_precisions(model), parsed) == ()


def test_layer_left_in_another_type_by_the_network_is_named() -> None:
    layers = layer_precisions(network("fp16"))
    parsed = [NetworkLayer("stem/Conv", "convolution", ("float", "float"), ("float",))]

    found = precision_mismatches(layers, parsed)

    assert [(each.node, each.in_file, each.in_network) for each in found] == [
        ("stem/Conv", "fp16", "fp32"),
        ("head/Gemm", "fp16", "missing"),
    ]


def test_size_that_the_graph_computes_from_its_batch_is_worked_out() -> None:
    """Rows are gathered by places computed from the batch, as traced strides are: ONNX's inference stops there."""
    model = network()
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    position = list(model.graph.node).index(flatten)
    chain = [
        helper.make_node("Shape", ["images"], ["batch"], name="batch", start=0, end=1),
        helper.make_node("Squeeze", ["batch"], ["count"], name="count"),
        helper.make_node("Range", ["zero", "count", "one"], ["rows"], name="rows"),
        helper.make_node("Mul", ["rows", "width"], ["starts"], name="starts"),
        helper.make_node("Unsqueeze", ["starts", "axis"], ["column"], name="column"),
        helper.make_node("Add", ["column", "offsets"], ["places"], name="places"),
        helper.make_node("Reshape", ["maps", "line"], ["all"], name="all"),
        helper.make_node("Gather", ["all", "places"], ["chosen"], name="chosen"),
        helper.make_node("Reshape", ["chosen", "matrix"], ["flat"], name="flatten"),
    ]
    model.graph.node.remove(flatten)
    for node in reversed(chain):
        model.graph.node.insert(position, node)
    numbers = {"zero": 0, "one": 1, "width": 144, "axis": [1], "line": [-1], "matrix": [-1, 144]}
    for name, number in {**numbers, "offsets": [list(range(144))]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), name))
    onnx.checker.check_model(model)

    assert [layer.flops for layer in layer_precisions(model)] == [2 * 4 * 36 * 27, 2 * 144 * 5]
