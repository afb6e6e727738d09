"""Files of half precision are computed in float32: the same weights, branches and constants included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.sessions import cpu_session
from saccade.export.sources.onnx_files import read_model, run, served_model
from saccade.export.sources.onnx_half import is_half, widened

SIDE = 8


def half_file(path: Path, element: int) -> NDArray[np.float32]:
    """A graph with weights, a constant, a cast and a branch of half precision; returns a white picture's logits."""
    weight = np.random.default_rng(3).normal(size=(3, 2)).astype(np.float32)
    halves = [
        helper.make_tensor("w", element, weight.shape, weight.astype(np.float16).ravel())
        if element == TensorProto.FLOAT16
        else helper.make_tensor("w", element, weight.shape, weight.ravel())
    ]
    branch = helper.make_graph(
        [
            helper.make_node("Constant", [], ["two"], value=helper.make_tensor("v", element, [], [2.0])),
            helper.make_node("Mul", ["m", "two"], ["doubled"]),
        ],
        "doubled",
        [],
        [helper.make_tensor_value_info("doubled", element, ["n", 3])],
    )
    same = helper.make_graph(
        [helper.make_node("Identity", ["m"], ["same"])],
        "same",
        [],
        [helper.make_tensor_value_info("same", element, ["n", 3])],
    )
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["wide"], axes=[2, 3], keepdims=0),
        helper.make_node("Cast", ["wide"], ["m"], to=element),
        helper.make_node("If", ["yes"], ["d"], then_branch=branch, else_branch=same),
        helper.make_node("MatMul", ["d", "w"], ["half"]),
        helper.make_node("Cast", ["half"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [*halves, numpy_helper.from_array(np.array(True), "yes")],
        value_info=[helper.make_tensor_value_info("half", element, ["n", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    stored = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
    return np.asarray(2.0 * stored.sum(0), np.float32)


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_nothing_but_the_rounding_changes(tmp_path: Path, element: int) -> None:
    expected = half_file(tmp_path / "half.onnx", element)
    white = np.ones((2, 3, SIDE, SIDE), np.float32)

    model = widened(read_model(tmp_path / "half.onnx"))

    onnx.checker.check_model(model, full_check=True)
    assert not is_half(model)
    (logits,) = cpu_session(model.SerializeToString()).run(None, {"images": white})
    np.testing.assert_allclose(logits, [expected, expected], rtol=1e-6)


def test_file_of_half_precision_is_run_and_served_in_float32(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    expected = half_file(path, TensorProto.FLOAT16)

    (logits,) = run(path, np.ones((1, 3, SIDE, SIDE), np.float32))

    assert is_half(read_model(path))
    assert not is_half(served_model(path))
    np.testing.assert_allclose(logits, [expected], rtol=1e-6)
