"""What a server reads of an ONNX file by itself is what the exporter reads with the `onnx` package."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saccade.export.precision.effective_precision import layer_precisions
from saccade.service.repository.layer_precision import weighted_precisions
from saccade.service.repository.onnx_graph import graph_from, read_graph
from tests.support.published_graphs import graph


def precisions(content: bytes) -> dict[str, str]:
    return dict(weighted_precisions(graph_from(memoryview(content))))


@pytest.mark.parametrize("variant", ["fp32", "int8-trt", "int8-trt-sparse24"])
def test_every_layer_with_weights_is_read_as_the_exporter_reads_it(variant: str) -> None:
    content = graph(variant)
    layers = layer_precisions(onnx.load_model_from_string(content))

    assert precisions(content) == {layer.node: layer.precision for layer in layers if layer.weights}
    assert variant[:4] in precisions(content).values()


@pytest.mark.parametrize(("kind", "precision"), [(TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")])
def test_types_of_halves_are_read_through_casts_and_transposes(kind: int, precision: str) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["half"], "cast", to=kind),
        helper.make_node("Cast", ["weight"], ["half_weight"], "cast_weight", to=kind),
        helper.make_node("Transpose", ["half_weight"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["half", "turned"], ["scores"], "product"),
    ]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "weight")
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4])]
    outputs = [helper.make_tensor_value_info("scores", kind, [1, 4])]
    model = helper.make_model(helper.make_graph(nodes, "halves", inputs, outputs, [weight]))

    assert precisions(model.SerializeToString()) == {"product": precision}


def test_weights_are_passed_over_in_a_large_file(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros((2048, 2048), np.float32), "weight")  # 16 MiB
    product = helper.make_node("MatMul", ["images", "weight"], ["scores"], "product")
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 2048])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2048])]
    onnx.save(helper.make_model(helper.make_graph([product], "large", inputs, outputs, [weight])), tmp_path / "a.onnx")
    tracemalloc.start()

    found = weighted_precisions(read_graph(tmp_path / "a.onnx"))

    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {"product": "fp32"}
    assert most_bytes < 1024 * 1024


@pytest.mark.parametrize("kept", [1, 7, 100, -1])
def test_a_file_that_was_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match="it ends within a field"):
        precisions(graph("fp32")[:kept])


def test_bytes_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="wire type"):
        precisions(b"weights")


def test_a_graph_without_an_end_is_refused() -> None:
    nodes = [helper.make_node("Identity", ["b"], ["a"], "first"), helper.make_node("Identity", ["a"], ["b"], "second")]
    model = helper.make_model(helper.make_graph(nodes, "circle", [], []))

    with pytest.raises(ValueError, match="'b' is used before it is made"):
        precisions(model.SerializeToString())
