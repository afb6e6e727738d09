"""The 2:4 pattern on graphs. Promises: one weight off the pattern is found, wherever the weight is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.compression.sparsity.mask_check import claimed_layers
from saccade.export.errors import GraphError
from saccade.service.repository import two_four
from saccade.service.repository.onnx_graph import graph_from
from saccade.service.repository.two_four import Violation, broken_groups

LAYER = "network.body.2"
Constants = dict[str, np.ndarray]


def sparse_weight(shape: tuple[int, ...] = (6, 8, 3, 3), axis: int = 1) -> np.ndarray:
    """Random weights, two of every four along `axis` zero."""
    rng = np.random.default_rng(0)
    weight = np.moveaxis(rng.uniform(0.5, 1.0, shape), axis, -1)
    groups = weight.reshape(*weight.shape[:-1], -1, 4)
    order = rng.permuted(np.broadcast_to(np.arange(4), groups.shape), axis=-1)
    return np.moveaxis(np.where(order < 2, 0.0, groups).reshape(weight.shape), -1, axis).astype(np.float32)


def off_pattern(weight: np.ndarray, axis: int = 1) -> np.ndarray:
    """The same with one weight moved: a third one in its group."""
    moved = np.moveaxis(weight.copy(), axis, -1)
    group = moved[(0,) * (moved.ndim - 1)][:4]
    group[np.flatnonzero(group == 0)[0]] = 0.7
    return np.moveaxis(moved, -1, axis)


def mask_violations(model: onnx.ModelProto, claimed: Sequence[str]) -> tuple[Violation, ...]:
    return two_four.mask_violations(graph_from(memoryview(model.SerializeToString())), claimed)


def graph(nodes: list[onnx.NodeProto], constants: Constants) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )


def product(op: str, weight: str = "w", **attributes: int) -> onnx.NodeProto:
    return helper.make_node(op, ["x", weight], ["y"], name=f"{LAYER}/{op.lower()}", **attributes)


def direct(weight: np.ndarray) -> onnx.ModelProto:
    return graph([product("Conv")], {"w": weight})


def through_cast(weight: np.ndarray) -> onnx.ModelProto:
    cast = helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT)
    return graph([cast, product("Conv")], {"half": weight.astype(np.float16)})


def quantized_in_graph(weight: np.ndarray) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["f", "scale", "zero"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0),
        product("Conv"),
    ]
    scale = np.full(len(weight), 1 / 127, np.float32)
    return graph(nodes, {"f": weight, "scale": scale, "zero": np.zeros(len(weight), np.int8)})


def stored_as_int8(weight: np.ndarray) -> onnx.ModelProto:
    nodes = [helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], axis=0), product("Conv")]
    scale = np.full(len(weight), 1 / 127, np.float32)
    return graph(nodes, {"q": np.rint(weight * 127).astype(np.int8), "scale": scale})


def stored_as_fp8(weight: np.ndarray) -> onnx.ModelProto:
    nodes = [helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]), product("Conv")]
    return graph(nodes, {"q": weight.astype(ml_dtypes.float8_e4m3fn), "scale": np.array(1.0, np.float32)})


def reshaped_and_turned(weight: np.ndarray) -> onnx.ModelProto:
    """Stored as (C, K, R, S) in one row."""
    turned = np.ascontiguousarray(weight.transpose(1, 0, 2, 3))
    nodes = [
        helper.make_node("Reshape", ["flat", "shape"], ["square"]),
        helper.make_node("Transpose", ["square"], ["w"], perm=[1, 0, 2, 3]),
        product("Conv"),
    ]
    return graph(nodes, {"flat": turned.ravel(), "shape": np.array(turned.shape, np.int64)})


@pytest.mark.parametrize(
    "built",
    [direct, through_cast, quantized_in_graph, stored_as_int8, stored_as_fp8, reshaped_and_turned],
    ids=lambda built: built.__name__,
)
def test_one_weight_off_the_pattern_is_found(built: object) -> None:
    assert callable(built)
    weight = sparse_weight()

    assert mask_violations(built(weight), [LAYER]) == ()
    (found,) = mask_violations(built(off_pattern(weight)), [LAYER])
    assert (found.layer, found.node) == (LAYER, f"{LAYER}/conv")
    assert "1 of 108 groups" in found.reason


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "axis"),
    [
        ("Gemm", {"transB": 1}, (6, 8), 1),
        ("Gemm", {}, (8, 6), 0),
        ("MatMul", {}, (8, 6), 0),
        ("MatMul", {}, (2, 8, 6), 1),
    ],
)
def test_matrix_products_are_sparse_along_what_is_summed(
    op: str, attributes: dict[str, int], shape: tuple[int, ...], axis: int
) -> None:
    weight = sparse_weight(shape, axis)

    assert mask_violations(graph([product(op, **attributes)], {"w": weight}), [LAYER]) == ()
    assert mask_violations(graph([product(op, **attributes)], {"w": off_pattern(weight, axis)}), [LAYER])


def test_pattern_along_the_wrong_axis_is_no_pattern() -> None:
    flattened = sparse_weight((6, 8 * 9), 1).reshape(6, 8, 3, 3)  # 2:4 along C·R·S, as others prune

    assert len(mask_violations(direct(flattened), [LAYER])) == 1


def test_claimed_layer_that_is_not_in_the_graph_is_a_violation() -> None:
    (found,) = mask_violations(direct(sparse_weight()), ["network.absent"])

    assert (found.layer, found.node) == ("network.absent", "")
    assert "no convolution or matrix product" in found.reason


def test_weight_that_is_computed_is_a_violation() -> None:
    double = helper.make_node("Add", ["half", "half"], ["w"])
    (found,) = mask_violations(graph([double, product("Conv")], {"half": sparse_weight()}), [LAYER])

    assert "not a constant" in found.reason


def test_zeros_behind_a_zero_point_are_no_zeros() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"]), product("Conv")]
    constants = {
        "q": sparse_weight().astype(np.uint8),
        "scale": np.array(1.0, np.float32),
        "zero": np.array(128, np.uint8),
    }
    (found,) = mask_violations(graph(nodes, constants), [LAYER])

    assert "zero point" in found.reason


def test_layers_that_nobody_claimed_may_be_dense() -> None:
    assert mask_violations(direct(np.ones((4, 8, 1, 1), np.float32)), []) == ()


def test_rest_that_fills_no_group_breaks_the_pattern() -> None:
    assert broken_groups(np.zeros((3, 6))) == 3
    assert broken_groups(np.zeros((3, 8))) == 0


def test_claims_are_read_from_the_step_that_made_them(tmp_path: Path) -> None:
    (tmp_path / "sparsity.json").write_text('{"claimed": ["network.a", "network.b"], "kept_magnitude": 0.9}')

    assert claimed_layers(tmp_path) == ("network.a", "network.b")


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_claims_that_cannot_be_read_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "sparsity.json").write_text(text)

    with pytest.raises(GraphError, match="run compress again"):
        claimed_layers(tmp_path)
