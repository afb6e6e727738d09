"""Emulation. Promises: a CPU computes the shipped fp16 or bf16 bytes, and rounds after every narrow node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from saccade.export.errors import GraphError
from saccade.export.precision.emulation import emulated, measured_through, needs_emulation, runnable_file

DTYPES: dict[int, Any] = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
KINDS = sorted(DTYPES)


def rounded(values: NDArray[Any], kind: int) -> NDArray[np.float32]:
    return values.astype(np.float32).astype(DTYPES[kind]).astype(np.float32)


def product(kind: int, weights: NDArray[np.float32]) -> onnx.ModelProto:
    """x cast, multiplied with a matrix, shifted, made positive, squashed, and cast back."""
    node = helper.make_node
    nodes = [
        node("Cast", ["x"], ["narrow"], name="in", to=kind),
        node("MatMul", ["narrow", "w"], ["product"], name="layer/MatMul"),
        node("Add", ["product", "shift"], ["shifted"], name="layer/Add"),
        node("Relu", ["shifted"], ["positive"], name="layer/Relu"),
        node("Tanh", ["positive"], ["squashed"], name="layer/Tanh"),
        node("Cast", ["squashed"], ["y"], name="out", to=TensorProto.FLOAT),
    ]
    constants = [
        numpy_helper.from_array(weights.astype(DTYPES[kind]), "w"),
        numpy_helper.from_array(np.full(4, 0.01, np.float32).astype(DTYPES[kind]), "shift"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "graph", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(file: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """With all optimisations on, as the service opens files."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return found


def saved(model: onnx.ModelProto, directory: Path) -> Path:
    file = directory / "model.onnx"
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_every_narrow_result_is_rounded_even_when_the_runtime_optimises(kind: int, tmp_path: Path) -> None:
    weights = np.diag([0.3, 1.7, -2.1, 0.9]).astype(np.float32)  # one product per output, so sums have no order
    x = np.random.default_rng(1).normal(0, 1, (64, 4)).astype(np.float32)
    with runnable_file(saved(product(kind, weights), tmp_path)) as file:
        found = answers(file, x)

    by_hand = rounded(rounded(x, kind) * rounded(np.diag(weights), kind), kind)
    by_hand = np.maximum(rounded(by_hand + rounded(np.full(4, 0.01, np.float32), kind), kind), 0)
    by_hand = rounded(np.tanh(by_hand), kind)
    np.testing.assert_array_equal(found, rounded(found, kind))
    step = 2.0**-11 if kind == TensorProto.FLOAT16 else 2.0**-8
    np.testing.assert_allclose(found, by_hand, atol=step)  # tanh itself may differ in its last bit
    in_fp32 = np.tanh(np.maximum(x * np.diag(weights) + np.float32(0.01), 0))
    assert np.abs(found - in_fp32).max() > step / 2


def test_runtime_has_no_bf16_convolution_which_is_why_it_is_emulated(tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 22]>
        g (float[n,1,2,2] x) => (float[n,1,2,2] y)
        { narrow = Cast <to = 16> (x)
          w = Constant <value = bfloat16[1,1,1,1] {2}> ()
          maps = Conv (narrow, w)
          y = Cast <to = 1> (maps) }"""
    )
    constant = next(node for node in model.graph.node if node.op_type == "Constant")
    tensor = numpy_helper.from_array(np.full((1, 1, 1, 1), 2.0).astype(ml_dtypes.bfloat16))
    constant.attribute[0].t.CopyFrom(tensor)
    file = saved(model, tmp_path)
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)

    with pytest.raises(Exception, match="Conv"):
        answers(file, x)
    with runnable_file(file) as runnable:
        np.testing.assert_array_equal(answers(runnable, x), 2 * x)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_weights_decide_the_numbers(kind: int, tmp_path: Path) -> None:
    weights = np.eye(4, dtype=np.float32)
    x = np.full((1, 4), 0.25, np.float32)
    with runnable_file(saved(product(kind, weights), tmp_path)) as file:
        before = answers(file, x)
    weights[2, 2] = 3.0
    with runnable_file(saved(product(kind, weights), tmp_path)) as file:
        after = answers(file, x)

    assert np.flatnonzero(before != after).tolist() == [2]


def test_file_that_needs_none_is_opened_itself(tmp_path: Path) -> None:
    model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) {y = Relu(x)}')
    file = saved(model, tmp_path)

    with runnable_file(file) as runnable:
        assert runnable == file
    assert not needs_emulation(model)
    assert measured_through(model) == "file"
    assert measured_through(product(TensorProto.FLOAT16, np.eye(4, dtype=np.float32))) == "emulation"


def test_emulation_is_gone_after_use_and_nothing_in_it_is_narrow_but_its_casts(tmp_path: Path) -> None:
    model = product(TensorProto.BFLOAT16, np.eye(4, dtype=np.float32))
    with runnable_file(saved(model, tmp_path)) as file:
        made = onnx.load(file)

    assert not file.exists()
    assert {tensor.data_type for tensor in made.graph.initializer} == {TensorProto.FLOAT}
    roundings = [node for node in made.graph.node if node.name.endswith("/round")]
    assert [node.name for node in roundings] == [
        "in/narrow/round",
        "layer/MatMul/product/round",
        "layer/Add/shifted/round",
        "layer/Tanh/squashed/round",
    ]  # Relu only chooses


def test_narrow_inputs_and_loop_bodies_are_refused() -> None:
    entering = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float16[n] x) => (float[n] y) {y = Cast <to = 1> (x)}'
    )
    inside = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[n] x, bool pick) => (float[n] y)
        { y = If (pick) <then_branch = a () => (float[n] t) { h = Cast <to = 10> (x) t = Cast <to = 1> (h) },
                         else_branch = b () => (float[n] e) { e = Identity (x) }> }"""
    )

    with pytest.raises(GraphError, match="'x' is float16"):
        emulated(entering)
    with pytest.raises(GraphError, match="the body of If"):
        emulated(inside)
