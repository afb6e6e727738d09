"""Equal LayerNorm scales. Promises held here: the function stays, channels reach equally far, residuals are safe."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.precision.layer_norm_scales import (
    ChannelChange,
    ChannelRanges,
    adjustable_norms,
    apply_change,
    change_for,
    ensure_same_function,
    observed_channels,
    with_equal_scales,
)

CHANNELS, OUTPUTS = 12, 8
IMAGES = np.random.default_rng(5).integers(0, 256, (24, 3, 4, 3), np.uint8)


def floats(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def transformer_end(
    *, reader: str = "MatMul", has_bias: bool = True, feeds_residual: bool = False, shares_weight: bool = False
) -> onnx.ModelProto:
    """Three tokens of twelve channels through a LayerNorm, whose weights differ a hundredfold, and one linear layer."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.05, 5.0, CHANNELS)
    constants = {
        "shape": np.array([0, -1, CHANNELS] if reader == "MatMul" else [-1, CHANNELS], np.int64),
        "norm.weight": spread.astype(np.float32),
        "norm.bias": (spread * rng.normal(0, 2, CHANNELS)).astype(np.float32),
        "weight": rng.normal(size=(CHANNELS, OUTPUTS)).astype(np.float32),
        "bias": rng.normal(size=OUTPUTS).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], name="cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["tokens"], name="tokens"),
        helper.make_node(
            "LayerNormalization", ["tokens", "norm.weight", "norm.bias"], ["normed"], name="norm", axis=-1
        ),
    ]
    if reader == "Gemm":
        constants["weight"] = constants["weight"].T.copy()
        inputs = ["normed", "weight", "bias"] if has_bias else ["normed", "weight"]
        nodes.append(helper.make_node("Gemm", inputs, ["raw"], name="linear", transB=1, alpha=0.5, beta=2.0))
    elif has_bias:
        nodes.append(helper.make_node("MatMul", ["normed", "weight"], ["product"], name="linear"))
        nodes.append(helper.make_node("Add", ["bias", "product"], ["raw"], name="add"))
    else:
        nodes.append(helper.make_node("MatMul", ["normed", "weight"], ["raw"], name="linear"))
    raw_shape = ["batch", 3, OUTPUTS] if reader == "MatMul" else ["rows", OUTPUTS]
    outputs = [floats("raw", raw_shape)]
    if feeds_residual:
        nodes.append(helper.make_node("Add", ["tokens", "normed"], ["residual"], name="residual"))
        outputs.append(floats("residual", ["batch", 3, CHANNELS]))
    if shares_weight:
        nodes.append(
            helper.make_node("LayerNormalization", ["tokens", "norm.weight", "norm.bias"], ["second"], name="second")
        )
        nodes.append(helper.make_node("MatMul", ["second", "weight"], ["again"], name="again"))
        outputs.append(floats("again", ["batch", 3, OUTPUTS]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", 3, 4, 3])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    mark_network_outputs(model, [output.name for output in outputs])
    model.graph.output.extend(outputs)  # a deploy graph would answer what it makes of them
    onnx.checker.check_model(model)
    return model


def ranges(model: onnx.ModelProto, tensor: str = "normed") -> ChannelRanges:
    return observed_channels(model, [tensor], IMAGES)[tensor]


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("reader", ["MatMul", "Gemm"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_function_stays(reader: str, has_bias: bool, is_symmetric: bool) -> None:
    model = transformer_end(reader=reader, has_bias=has_bias)

    changed, count = with_equal_scales(model, IMAGES, is_symmetric=is_symmetric)

    onnx.checker.check_model(changed)
    assert count == 1
    ensure_same_function(model, changed, IMAGES)


def test_a_changed_graph_can_be_changed_again() -> None:
    model = transformer_end(has_bias=False)
    once, _ = with_equal_scales(model, IMAGES, is_symmetric=True)

    twice, _ = with_equal_scales(once, IMAGES, is_symmetric=False)

    names = [tensor.name for tensor in twice.graph.initializer]
    assert len(set(names)) == len(names)
    ensure_same_function(model, twice, IMAGES)


def test_channels_reach_equally_far_and_start_at_the_same_place() -> None:
    model = transformer_end()
    before = ranges(model)
    assert np.ptp(before.high - before.low) > (before.high - before.low).mean()

    changed, _ = with_equal_scales(model, IMAGES, is_symmetric=False)

    found = ranges(changed)
    assert found.low == pytest.approx(np.full(CHANNELS, found.low.mean()), abs=0.02 * float(np.ptp(found.low)) + 1e-3)
    assert found.high - found.low == pytest.approx(np.full(CHANNELS, (found.high - found.low).mean()), rel=1e-3)


def test_symmetric_codes_get_equal_magnitudes_and_no_shift() -> None:
    model = transformer_end()

    changed, _ = with_equal_scales(model, IMAGES, is_symmetric=True)

    found = ranges(changed)
    magnitudes = np.maximum(np.abs(found.low), np.abs(found.high))
    assert magnitudes == pytest.approx(np.full(CHANNELS, magnitudes.mean()), rel=1e-3)
    assert "bias" in next(node for node in changed.graph.node if node.name == "add").input


def test_one_scale_for_all_channels_then_rounds_as_one_per_channel_would() -> None:
    model = transformer_end()
    changed, _ = with_equal_scales(model, IMAGES, is_symmetric=False)

    def error(of: onnx.ModelProto) -> float:
        """Mean over channels of the squared rounding error, each relative to its channel's range in `of`."""
        found = ranges(of)
        low, high = min(float(found.low.min()), 0.0), max(float(found.high.max()), 0.0)
        step = (high - low) / 255
        return float(np.mean((step / (found.high - found.low)) ** 2))

    assert error(changed) < error(model) / 20


def test_a_norm_that_also_feeds_a_residual_is_left_alone() -> None:
    model = transformer_end(feeds_residual=True)

    changed, count = with_equal_scales(model, IMAGES, is_symmetric=False)

    assert adjustable_norms(model) == []
    assert count == 0
    assert changed == model


def test_a_norm_over_another_axis_or_with_a_leaving_output_is_left_alone() -> None:
    model = transformer_end()
    next(node for node in model.graph.node if node.name == "norm").attribute[0].i = -2
    assert adjustable_norms(model) == []

    leaving = transformer_end()
    leaving.graph.output.append(floats("normed", ["batch", 3, CHANNELS]))
    assert adjustable_norms(leaving) == []


def test_layers_that_share_constants_are_changed_apart() -> None:
    model = transformer_end(shares_weight=True)
    norm = adjustable_norms(model)[0]

    apply_change(model, norm, ChannelChange(np.full(CHANNELS, 2.0), np.zeros(CHANNELS)))

    ensure_same_function(transformer_end(shares_weight=True), model, IMAGES)


def test_a_change_that_is_not_taken_back_is_an_error() -> None:
    model, broken = transformer_end(), transformer_end()
    weight = next(tensor for tensor in broken.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.0001), "weight"))

    with pytest.raises(GraphError, match="layer_norm_reparametrisation"):
        ensure_same_function(model, broken, IMAGES)


def test_a_channel_that_hardly_moves_is_not_blown_up() -> None:
    still = ChannelRanges(np.array([3.0, -1.0, -2.0]), np.array([3.0, 1.0, 2.0]))

    change = change_for(still, is_symmetric=False)

    assert np.isfinite(change.ratio).all()
    assert np.isfinite(change.shift).all()
    assert change.ratio.min() >= 1 / 70


def test_a_norm_that_is_constant_everywhere_stays() -> None:
    change = change_for(ChannelRanges(np.zeros(3), np.zeros(3)), is_symmetric=True)

    assert change.ratio.tolist() == [1.0, 1.0, 1.0]
