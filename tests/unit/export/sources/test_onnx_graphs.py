"""Graphs of ONNX files as real exporters write them: nodes in any order, rows that are no pictures, constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import SourceError
from saccade.export.sources import load_network, source_facts
from saccade.export.sources.onnx_files import parameter_count, served_model
from tests.support.network_requests import network_request, source_spec
from tests.unit.export.sources.test_onnx_source import CLASSES, SIDE, classifier, saved


def test_parameters_of_a_file_are_counted_wherever_they_lie(tmp_path: Path) -> None:
    inside = helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(np.ones(7, np.float32)))
    model = onnx.load(classifier(tmp_path / "n.onnx"))
    model.graph.node.append(inside)
    model.graph.initializer.append(numpy_helper.from_array(np.arange(9), "positions"))  # whole numbers are no weights

    assert parameter_count(model.graph) == 4 * 3 * 3 * 3 + 4 * CLASSES + 7


def test_rows_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    sequence = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),  # (n, 3)
        helper.make_node("Unsqueeze", ["mean", "axis"], ["steps"]),
        helper.make_node("Tile", ["steps", "times"], ["logits"]),  # (20, n, 3), as recurrent networks answer
    ]
    tensors = [
        numpy_helper.from_array(np.array([0], np.int64), "axis"),
        numpy_helper.from_array(np.array([20, 1, 1], np.int64), "times"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [20, "n", 3])
    path = saved(tmp_path / "net.onnx", sequence, (logits,), initializers=tensors)

    with pytest.raises(SourceError, match="has 20 rows, whatever the pictures are"):
        source_facts(source_spec("onnx"), path)


def test_nodes_in_any_order_are_sorted(tmp_path: Path) -> None:
    model = onnx.load(classifier(tmp_path / "net.onnx"))
    nodes = list(reversed(model.graph.node))
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    expected = load_network(network_request("onnx", tmp_path / "net.onnx")).module(images)
    path = saved(tmp_path / "turned.onnx", nodes, initializers=model.graph.initializer)

    onnx.checker.check_model(served_model(path))
    assert torch.equal(load_network(network_request("onnx", path)).module(images), expected)


def test_nodes_in_a_circle_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]

    with pytest.raises(SourceError, match="read each other in a circle"):
        source_facts(source_spec("onnx"), saved(tmp_path / "net.onnx", nodes))
