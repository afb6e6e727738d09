"""Quantization for TensorRT. Promises: pairs stand where its fusions want them, symmetric, and zeros stay zeros."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import constants_of
from saccade.export.graph.onnx_graph import network_outputs
from saccade.export.plans.tensorrt_from_onnx import build_plan, find_tensorrt
from saccade.export.precision.quantization.calibrate import activations
from saccade.export.precision.quantization.calibration import observe
from saccade.export.precision.quantization.placement_trt import Edge, placement_for_tensorrt
from saccade.export.precision.quantization.qdq_trt import (
    FP8_FORMAT,
    INT8_FORMAT,
    NumberFormat,
    quantized_for_tensorrt,
    shared_ranges,
)
from saccade.export.precision.quantization.thresholds import Range, minmax_range
from tests.support.residual_network import CHANNELS, SIDE, residual_network

IMAGES = np.random.default_rng(1).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)
needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")


def integer_weights(model: onnx.ModelProto, nodes: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The quantized weights (as stored) by name of the node that reads them; of all nodes when none are named."""
    constants = constants_of(model)
    dequantized = {
        node.output[0]: constants[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    return {
        node.name: dequantized[node.input[1]]
        for node in model.graph.node
        if len(node.input) > 1 and node.input[1] in dequantized and (not nodes or node.name in nodes)
    }


def minmax_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    return {name: minmax_range(each) for name, each in observe(model, activations(model), IMAGES).items()}


def quantized_network(numbers: NumberFormat, sparse_layer: str | None = None) -> onnx.ModelProto:
    model = residual_network(sparse_layer=sparse_layer)
    return quantized_for_tensorrt(model, placement_for_tensorrt(model), minmax_ranges(model), numbers)


def raw_output(model: onnx.ModelProto) -> np.ndarray:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(onnx.helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["raw"], {"images": IMAGES})[0]
    return found


def test_wide_weighted_layers_are_quantized_and_the_others_say_why_not() -> None:
    placement = placement_for_tensorrt(residual_network())

    assert placement.nodes == ("shortcut/Conv", "first/Conv", "second/Conv", "wise/Conv", "last/Conv")
    assert placement.reasons == {
        "stem/Conv": "3 input channels, fewer than 16",
        "grouped/Conv": "4 input channels, fewer than 16",
        "classify/MatMul": "16 x 10 weights, a side below 16",
    }


def test_of_two_convolutions_the_later_one_takes_the_sum_and_the_other_is_its_quantized_residual() -> None:
    edges = placement_for_tensorrt(residual_network()).edges

    assert Edge("shortcut", "summed/Add") in edges
    assert Edge("second", "summed/Add") not in edges
    assert Edge("grouped", "both/Add") in edges  # float, and still the residual of a quantized convolution


def test_nothing_that_only_copies_reads_through_a_pair() -> None:
    readers = {edge.node for edge in placement_for_tensorrt(residual_network()).edges}

    assert not [name for name in readers if re.search("MaxPool|Slice|Concat|Flatten|Relu", name)]


def test_concatenated_tensors_share_one_scale() -> None:
    placement = placement_for_tensorrt(residual_network())
    ranges = dict.fromkeys(placement.tensors, Range(0.0, 1.0)) | {"joined": Range(0.0, 7.0)}

    shared = shared_ranges(placement, ranges)

    assert shared["block"] == shared["joined"] == Range(0.0, 7.0)
    assert shared["first_active"] == Range(0.0, 1.0)


def test_a_sum_that_broadcasts_is_no_residual() -> None:
    model = residual_network()
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    add = next(node for node in model.graph.node if node.name == "both/Add")
    pool.input[0] = "grouped"
    add.input[1] = "mean"
    model.graph.node.remove(add)
    model.graph.node.insert(list(model.graph.node).index(pool) + 1, add)

    edges = placement_for_tensorrt(model).edges

    assert not [edge for edge in edges if edge.node == "both/Add"]


def test_layers_the_recipe_or_a_measurement_takes_out_stay_float() -> None:
    placement = placement_for_tensorrt(residual_network(), ("first",), {"last/Conv": "too sensitive"})

    assert placement.nodes == ("shortcut/Conv", "second/Conv", "wise/Conv")
    assert placement.reasons["first/Conv"] == "kept float by the recipe"
    assert placement.reasons["last/Conv"] == "too sensitive"


def test_weights_become_symmetric_integers_per_output_channel() -> None:
    weights = integer_weights(quantized_network(INT8_FORMAT))

    assert set(weights) == {"shortcut/Conv", "first/Conv", "second/Conv", "wise/Conv", "last/Conv"}
    for codes in weights.values():
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(np.abs(codes.astype(int)).reshape(CHANNELS, -1).max(axis=1), 127)


def test_zeros_of_a_two_four_mask_stay_zero_in_the_integer_tensor() -> None:
    for numbers in (INT8_FORMAT, FP8_FORMAT):
        codes = integer_weights(quantized_network(numbers, sparse_layer="second"), ["second/Conv"])["second/Conv"]

        is_zero = codes.astype(np.float32) == 0.0
        assert is_zero[:, 0::4].all()
        assert is_zero[:, 1::4].all()
        assert is_zero.reshape(CHANNELS, CHANNELS // 4, 4, -1).sum(axis=2).min() == 2


def test_there_is_no_unsigned_number_and_no_other_zero_point_than_zero() -> None:
    model = quantized_network(INT8_FORMAT)
    constants = constants_of(model)

    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zero_points = [constants[node.input[2]] for node in pairs if len(node.input) > 2]

    assert len(pairs) == 17  # six activations with two nodes, five weights with one
    assert {(zero.dtype.name, int(zero)) for zero in zero_points} == {("int8", 0)}
    assert all(len(node.input) == 3 for node in pairs if node.op_type == "QuantizeLinear")


def test_biases_and_the_contract_stay_as_they_were() -> None:
    before, after = residual_network(), quantized_network(INT8_FORMAT)

    assert [value.SerializeToString() for value in after.graph.input] == [
        value.SerializeToString() for value in before.graph.input
    ]
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    assert network_outputs(after) == ("raw",)
    np.testing.assert_array_equal(constants_of(after)["first.bias"], constants_of(before)["first.bias"])


@pytest.mark.parametrize(("numbers", "allowed"), [(INT8_FORMAT, 0.03), (FP8_FORMAT, 0.1)])
def test_outputs_stay_close_to_the_float_network(numbers: NumberFormat, allowed: float) -> None:
    wanted = raw_output(residual_network())

    error = np.linalg.norm(raw_output(quantized_network(numbers)) - wanted) / np.linalg.norm(wanted)

    assert 0.0 < error < allowed


def test_a_channel_of_zeros_keeps_a_usable_scale() -> None:
    model = residual_network()
    tensor = next(each for each in model.graph.initializer if each.name == "first.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[3] = 0.0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))

    made = quantized_for_tensorrt(model, placement_for_tensorrt(model), minmax_ranges(model), INT8_FORMAT)

    assert np.isfinite(raw_output(made)).all()
    assert not integer_weights(made)["first/Conv"][3].any()


def test_fp8_of_an_opset_without_it_names_the_recipe_key() -> None:
    model = residual_network(opset=18)

    with pytest.raises(GraphError, match=r"needs opset 19, the graph has 18: raise onnx\.opset"):
        quantized_for_tensorrt(model, placement_for_tensorrt(model), minmax_ranges(model), FP8_FORMAT)


@needs_rtx
@pytest.mark.parametrize(
    ("numbers", "capabilities", "dtype"), [(INT8_FORMAT, ("SM80", "SM89"), "int8"), (FP8_FORMAT, ("SM89",), "fp8")]
)
def test_tensorrt_builds_a_plan_that_holds_the_quantized_numbers(
    numbers: NumberFormat, capabilities: tuple[str, ...], dtype: str
) -> None:
    report = build_plan(quantized_network(numbers).SerializeToString(), capabilities, (1, 2, 4))

    assert report.errors == ()
    assert report.plan_bytes > 0
    assert report.dtypes[dtype] == 11  # five weights and six activations
