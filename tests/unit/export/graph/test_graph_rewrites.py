"""Graph rewrites, Q/DQ placement and the bare graph. Promises: same function before and after, on graphs built here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import (
    drop_dead_nodes,
    keep_zeros_around_max_pool,
    read_interleaved_pixels,
    use_constant_scales,
    use_depthwise_for_batch_norm,
    use_elementwise_vector_product,
    use_global_pooling,
)
from saccade.export.graph.onnx_graph import mark_network_outputs, network_outputs, op_counts, weighted_part
from saccade.export.precision.quantization.qdq import (
    has_vnni,
    last_tensors,
    nodes_to_quantize,
    observed_tensors,
    quantized,
)
from saccade.export.precision.quantization.thresholds import Range
from saccade.export.qualification.bare_graph import bare_graph, bare_images

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), np.uint8)


def constant(name: str, values: Any, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def graph(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], output: str) -> onnx.ModelProto:
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 10, 3])
    answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    built = helper.make_graph(nodes, "graph", [images], [answer], constants)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def front() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Transpose", ["images"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["floats"], to=TensorProto.FLOAT),
    ]


def network(stride: int = 2, kernel: int = 3, pad: int = 1) -> onnx.ModelProto:
    """Convolution, ReLU, convolution, then a softmax that decodes; raw output is `raw`. Equal calls: equal weights."""
    rng = np.random.default_rng(1)
    weights = [
        constant("w", rng.normal(0, 0.01, (4, 3, kernel, kernel))),
        constant("v", rng.normal(0, 1, (2, 4, 1, 1))),
    ]
    nodes = [
        *front(),
        helper.make_node("Conv", ["floats", "w"], ["first"], strides=[stride, stride], pads=[pad] * 4),
        helper.make_node("Relu", ["first"], ["active"]),
        helper.make_node("Conv", ["active", "v"], ["second"]),
        helper.make_node("Softmax", ["second"], ["raw"], axis=1),
        helper.make_node("Neg", ["raw"], ["answer"]),
    ]
    model = graph(nodes, weights, "answer")
    mark_network_outputs(model, ["raw"])
    return model


def run(model: onnx.ModelProto, images: NDArray[Any] = IMAGES) -> NDArray[Any]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: NDArray[Any] = session.run(None, {"images": images})[0]
    return answer


@pytest.mark.parametrize(("stride", "kernel", "pad"), [(1, 3, 1), (2, 3, 1), (2, 3, 0), (2, 7, 3), (1, 1, 0)])
def test_interleaved_convolution_equals_the_planar_one(stride: int, kernel: int, pad: int) -> None:
    model = network(stride, kernel, pad)
    before = run(model)

    assert read_interleaved_pixels(model)

    assert "Transpose" not in op_counts(model.graph.node)
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-6)


def test_front_of_another_form_is_left_alone() -> None:
    model = network()
    model.graph.node[2].attribute.append(helper.make_attribute("dilations", [2, 2]))
    before = copy.deepcopy(model)

    assert not read_interleaved_pixels(model)
    assert model == before


def test_spatial_mean_becomes_global_pooling() -> None:
    nodes = [*front(), helper.make_node("ReduceMean", ["floats", "axes"], ["answer"], keepdims=1)]
    model = graph(nodes, [constant("axes", [2, 3], np.int64)], "answer")
    before = run(model)

    use_global_pooling(model)

    assert op_counts(model.graph.node)["GlobalAveragePool"] == 1
    np.testing.assert_allclose(run(model), before, rtol=1e-5)


def test_computed_resize_target_becomes_constant_scales() -> None:
    nodes = [
        *front(),
        helper.make_node("Shape", ["floats"], ["batch"], start=0, end=2),
        helper.make_node("Concat", ["batch", "target"], ["sizes"], axis=0),
        helper.make_node("Resize", ["floats", "", "", "sizes"], ["answer"], mode="linear"),
    ]
    model = graph(nodes, [constant("target", [16, 20], np.int64)], "answer")
    before = run(model)

    use_constant_scales(model)

    assert set(op_counts(model.graph.node)) == {"Transpose", "Cast", "Resize"}
    np.testing.assert_allclose(run(model), before, rtol=1e-5)


def test_product_with_a_vector_becomes_elementwise() -> None:
    nodes = [*front(), helper.make_node("MatMul", ["floats", "v"], ["answer"])]
    model = graph(nodes, [constant("v", np.random.default_rng(2).normal(0, 1, 10))], "answer")
    before = run(model)

    use_elementwise_vector_product(model)

    assert "MatMul" not in op_counts(model.graph.node)
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-3)


def test_free_standing_batch_norm_becomes_a_depthwise_convolution() -> None:
    rng = np.random.default_rng(3)
    values = [constant(name, rng.uniform(0.5, 2.0, 3)) for name in ("scale", "shift", "mean", "variance")]
    nodes = [*front(), helper.make_node("BatchNormalization", ["floats", *(v.name for v in values)], ["answer"])]
    model = graph(nodes, values, "answer")
    before = run(model)

    use_depthwise_for_batch_norm(model)

    assert op_counts(model.graph.node)["Conv"] == 1
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-3)


def test_zeros_around_a_max_pool_stay_zeros_in_onnx_runtime() -> None:
    below_zero = constant("offset", -300.0)
    pads = constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    nodes = [
        *front(),
        helper.make_node("Add", ["floats", "offset"], ["negative"]),
        helper.make_node("Pad", ["negative", "pads"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["answer"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    model = graph(nodes, [below_zero, pads], "answer")

    keep_zeros_around_max_pool(model)

    found = run(model)
    np.testing.assert_allclose(found[:, :, 0, :], 0.0, atol=1e-30)
    np.testing.assert_allclose(found[:, :, :, 0], 0.0, atol=1e-30)
    assert (found[:, :, 1:-1, 1:-1] < 0).all()


def test_constant_that_only_a_branch_reads_is_not_dropped() -> None:
    value = helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Add", ["floats", "offset"], ["chosen"])], "branch", [], [value])
    condition = constant("condition", True, np.bool_)
    nodes = [*front(), helper.make_node("If", ["condition"], ["answer"], then_branch=branch, else_branch=branch)]
    model = graph(nodes, [condition, constant("offset", 1.0), constant("unread", 1.0)], "answer")

    drop_dead_nodes(model)

    assert {tensor.name for tensor in model.graph.initializer} == {"condition", "offset"}


def test_batch_norm_of_vectors_stays_as_it_is() -> None:
    rng = np.random.default_rng(3)
    values = [constant(name, rng.uniform(0.5, 2.0, 3)) for name in ("scale", "shift", "mean", "variance")]
    pool = helper.make_node("ReduceMax", ["floats"], ["pooled"], keepdims=0)
    axes = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([2, 3], np.int64)))
    pool.input.append("axes")
    norm = helper.make_node("BatchNormalization", ["pooled", *(v.name for v in values)], ["answer"])
    model = graph([*front(), axes, pool, norm], values, "answer")

    use_depthwise_for_batch_norm(model)

    assert "Conv" not in op_counts(model.graph.node)


def test_only_nodes_up_to_the_last_weighted_one_are_quantized() -> None:
    model = network()

    names = nodes_to_quantize(model, ())

    assert [name.partition("_")[0] for name in names] == ["Conv", "Relu", "Conv"]
    assert set(observed_tensors(model, names)) == {"floats", "first", "active", "second"}
    assert last_tensors(model, names) == {"second"}
    assert {node.op_type for node in weighted_part(model)} == {"Transpose", "Cast", "Conv", "Relu"}


def test_nodes_the_recipe_keeps_float_are_not_quantized() -> None:
    assert nodes_to_quantize(network(), ("Conv_4",)) == ["Conv_2", "Relu_3"]


def observed_range(model: onnx.ModelProto, tensor: str) -> Range:
    """What a calibration on all of `IMAGES` sees, widened to zero as quantization needs it."""
    shown = copy.deepcopy(model)
    del shown.graph.output[:]
    shown.graph.output.append(next(value for value in model.graph.value_info if value.name == tensor))
    values = run(shown)
    return Range(min(0.0, float(values.min())), max(0.0, float(values.max())))


def ranges_of(model: onnx.ModelProto) -> dict[str, Range]:
    return {name: observed_range(model, name) for name in ("floats", "first", "active", "second")}


def answer_step(model: onnx.ModelProto) -> float:
    """The most that one quantization step in each of two logits moves their softmax, whose slope is at most 1/4."""
    second = observed_range(model, "second")
    return 2 * (second.high - second.low) / 255 / 4


@pytest.fixture
def int8_model() -> onnx.ModelProto:
    model = network()
    ranges = ranges_of(model) | {"floats": Range(0, 9)}  # the pixels' range is known: this one must not be used
    return quantized(model, nodes_to_quantize(model, ()), ranges, has_vnni=has_vnni())


def test_nothing_left_to_quantize_is_refused_since_the_quantizer_would_take_everything() -> None:
    with pytest.raises(GraphError, match=r"shorten calibration\.keep_float"):
        quantized(network(), [], {}, has_vnni=True)


def test_pixels_feed_the_quantized_convolution_unchanged(int8_model: onnx.ModelProto) -> None:
    assert "Cast" not in op_counts(int8_model.graph.node)
    # Weights, activations and logits are rounded once each; together they cost less than three steps of a logit.
    assert abs(run(int8_model) - run(network())).max() < 3 * answer_step(network())
    assert network_outputs(int8_model) == ("raw",)


def test_float_first_convolution_keeps_its_cast() -> None:
    model = network()
    names = [name for name in nodes_to_quantize(model, ()) if name == "Conv_4"]

    made = quantized(model, names, ranges_of(model), has_vnni=True)

    assert op_counts(made.graph.node)["Cast"] == 1
    assert abs(run(made) - run(model)).max() < 3 * answer_step(model)


def test_graph_that_begins_otherwise_is_quantized_too() -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "w"], ["raw"]),
        helper.make_node("Neg", ["raw"], ["answer"]),
    ]
    model = graph(nodes, [constant("w", np.random.default_rng(4).normal(0, 0.01, (3, 4)))], "answer")
    mark_network_outputs(model, ["raw"])
    ranges = {"floats": Range(0.0, 255.0), "raw": Range(-9.0, 9.0)}

    made = quantized(model, nodes_to_quantize(model, ()), ranges, has_vnni=has_vnni())

    assert op_counts(made.graph.node)["QuantizeLinear"] >= 1
    assert abs(run(made) - run(model)).max() < 0.2


def test_bare_graph_of_another_front_is_refused() -> None:
    model = graph([helper.make_node("Cast", ["images"], ["answer"], to=TensorProto.FLOAT)], [], "answer")

    with pytest.raises(GraphError, match="at the graph's front"):
        bare_graph(model)


def test_bare_graphs_answer_the_same_on_normalised_floats(int8_model: onnx.ModelProto) -> None:
    for model in (network(), int8_model):
        bare = bare_graph(model)
        assert bare.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
        np.testing.assert_allclose(run(bare, bare_images(IMAGES)), run(model), rtol=1e-4, atol=1e-5)


def test_unmarked_graph_is_refused() -> None:
    model = network()
    del model.metadata_props[:]

    with pytest.raises(GraphError, match="onnx_from_torch"):
        network_outputs(model)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("flags : fpu avx2\n", False), ("flags : fpu avx512_vnni\n", True), ("flags: avx_vnni\n", True), ("", True)],
)
def test_vnni_is_read_from_the_flags(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)

    assert has_vnni(tmp_path / "cpuinfo") is expected
    assert has_vnni(tmp_path / "absent")
