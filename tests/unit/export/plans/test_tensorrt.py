"""TensorRT without a GPU. Promises: plans build from uint8 graphs, and refusals name operator, layer and reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from saccade.export.convert.detection_heads import CandidatesHead
from saccade.export.convert.onnx_optimization import slim
from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import read_interleaved_pixels
from saccade.export.graph.rewrites.byte_input import cast_bytes_first
from saccade.export.network import Suppression
from saccade.export.plans import operator_support
from saccade.export.plans.operator_support import tensorrt_refusals, tensorrt_support
from saccade.export.plans.tensorrt_from_onnx import DEFAULT_CAPABILITIES, build_plan, find_tensorrt
from tests.support.conversion import ConvertedModule

needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")


def graph(nodes: list[onnx.NodeProto], outputs: dict[str, int]) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])
    constants = [
        numpy_helper.from_array(np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([3], np.int64), "k"),
        numpy_helper.from_array(np.array(2.0, np.float32), "two"),
    ]
    answers = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    made = helper.make_graph(nodes, "graph", [images], answers, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def front() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Shape", ["images"], ["count"], name="shape", start=0, end=1),
        helper.make_node("Transpose", ["images"], ["planar"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", "w"], ["maps"], name="stem/Conv"),
    ]


def masks() -> onnx.ModelProto:
    nodes = [
        *front(),
        helper.make_node("ArgMax", ["maps"], ["best"], name="head/ArgMax", axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["mask"], name="head/Cast", to=TensorProto.UINT8),
        helper.make_node("Cast", ["count"], ["counts"], name="head/count", to=TensorProto.INT32),
    ]
    return graph(nodes, {"mask": TensorProto.UINT8, "counts": TensorProto.INT32})


def refused() -> onnx.ModelProto:
    nodes = [
        *front(),
        helper.make_node("Det", ["maps"], ["volumes"], name="network.stage.2/Det"),
    ]
    return graph(nodes, {"volumes": TensorProto.FLOAT})


class Detector(nn.Module):
    """64 boxes of three classes per image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.head = CandidatesHead(20, 3, Suppression(iou_threshold=0.5, score_threshold=0.05))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        rows = self.stem(images.permute(0, 3, 1, 2).float()).flatten(2).transpose(1, 2)
        boxes = torch.cat([rows[:, :, :2], rows[:, :, :2] + rows[:, :, 2:4].abs()], 2)
        best, class_ids = rows[:, :, 4:].softmax(2).max(2)
        answer: tuple[Tensor, ...] = self.head((boxes, best, class_ids))
        return answer


@needs_rtx
@pytest.mark.parametrize("capability", DEFAULT_CAPABILITIES)
def test_plan_of_a_detector_builds_though_nothing_runs_its_suppression(capability: str, detector: bytes) -> None:
    report = build_plan(detector, (capability,), (1, 4, 8))

    assert report.errors == ()
    assert report.plan_bytes > 10_000
    assert tensorrt_refusals(detector) == ()


@pytest.fixture(scope="module")
def detector() -> bytes:
    model = slim(ConvertedModule(Detector(), (torch.zeros(2, 8, 8, 3, dtype=torch.uint8),)).model)
    assert sum(node.op_type == "NonMaxSuppression" for node in model.graph.node) == 1
    return model.SerializeToString()


@needs_rtx
def test_plan_with_byte_images_and_byte_masks_builds_for_several_gpus(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(masks(), file)

    report = build_plan(file, ("SM80", "SM89"), (1, 4, 8))

    assert report.errors == ()
    assert report.plan_bytes > 10_000
    assert report.layers > 3
    assert report.dtypes["uint8"] == 1
    assert report.dtypes["float"] >= 2


@needs_rtx
def test_plan_that_may_use_sparse_kernels_builds() -> None:
    report = build_plan(masks().SerializeToString(), ("SM80",), (1,), "tensorrt_rtx", is_sparse=True)

    assert report.errors == ()
    assert report.plan_bytes > 0


@needs_rtx
def test_refused_node_is_named_with_its_layer(tmp_path: Path) -> None:
    report = build_plan(refused().SerializeToString())

    assert report.plan is None
    (error,) = report.errors
    assert (error.operator, error.node, error.layer) == ("Det", "network.stage.2/Det", "network.stage.2")
    assert "Cuda" not in error.reason


@needs_rtx
def test_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(GraphError, match=r"does not build for 'SM1'; it knows .*SM80"):
        build_plan(masks().SerializeToString(), ("SM1",))


def test_absent_tensorrt_says_what_to_install() -> None:
    with pytest.raises(GraphError, match="install the `rtx` extra"):
        build_plan(masks().SerializeToString(), runtime="tensorrt_of_nobody")


def test_without_tensorrt_a_table_tells_what_never_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_support, "find_tensorrt", lambda: None)

    support = tensorrt_support(refused().SerializeToString())

    assert not support.supported
    assert support.fallback == "onnxruntime"
    assert support.reason == "Det in network.stage.2: no determinants"
    assert tensorrt_refusals(masks().SerializeToString()) == ()
    assert tensorrt_support(masks().SerializeToString()).supported


def test_many_refusals_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_support, "find_tensorrt", lambda: None)
    nodes = [helper.make_node("Det", ["maps"], [f"d{index}"], name=f"layer{index}/Det") for index in range(5)]
    model = graph([*front(), *nodes], {"d0": TensorProto.FLOAT})

    assert tensorrt_support(model.SerializeToString()).reason.endswith("; and 2 more")


def test_bytes_are_cast_before_anything_else_reads_them() -> None:
    model = masks()

    cast_bytes_first(model)

    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    readers = [node for node in model.graph.node if "images" in node.input]
    assert [node.op_type for node in readers] == ["Cast"]
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 3
    transpose = next(node for node in model.graph.node if node.op_type == "Transpose")
    assert transpose.input[0] == readers[0].output[0]


def interleaved() -> onnx.ModelProto:
    """As published for every runtime: the pixels become floats by DequantizeLinear, for CPUs."""
    nodes = [
        *front()[1:],
        helper.make_node("ArgMax", ["maps"], ["best"], name="head/ArgMax", axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["mask"], name="head/Cast", to=TensorProto.UINT8),
    ]
    model = graph(nodes, {"mask": TensorProto.UINT8})
    assert read_interleaved_pixels(model)
    return model


@needs_rtx
def test_graph_that_dequantizes_its_pixels_for_cpus_builds_as_well() -> None:
    made = build_plan(interleaved().SerializeToString(), ("SM89",), (1, 2), "tensorrt_rtx")

    assert made.errors == ()
    assert made.plan is not None


def test_pixels_that_are_scaled_are_not_taken_for_cast() -> None:
    model = interleaved()
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "pixel_scale")
    scale.CopyFrom(numpy_helper.from_array(np.array(0.5, np.float32), scale.name))

    cast_bytes_first(model)

    assert any(node.op_type == "DequantizeLinear" for node in model.graph.node)
