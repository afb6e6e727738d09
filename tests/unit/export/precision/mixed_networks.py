"""A small classifier with everything that mixed precision must decide about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.onnx_graph import mark_network_outputs

SIDE = 64  # of the images, as the recipe of digits-classifier says


def values(shape: Sequence[int], name: str, scale: float = 0.1) -> onnx.TensorProto:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return numpy_helper.from_array(np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32), name)


def classifier(opset: int = 20) -> onnx.ModelProto:
    """Bytes, convolutions, a Resize, a written-out normalisation, a softmax over maps, logits; then the answer."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["images"], ["planar"], name="transpose", perm=[0, 3, 1, 2]),
        node("Cast", ["planar"], ["floats"], name="bytes_to_float", to=TensorProto.FLOAT),
        node("Conv", ["floats", "w1"], ["c1"], name="stem/Conv", strides=[8, 8]),
        node("Relu", ["c1"], ["r1"], name="stem/Relu"),
        node("Conv", ["r1", "w2"], ["c2"], name="body/Conv"),
        node("Resize", ["c2", "", "scales"], ["big"], name="body/Resize", mode="linear"),
        node("ReduceMean", ["big", "axes"], ["mean"], name="norm/ReduceMean"),
        node("Sub", ["big", "mean"], ["centred"], name="norm/Sub"),
        node("Mul", ["centred", "centred"], ["squares"], name="norm/Mul"),
        node("ReduceMean", ["squares", "axes"], ["variance"], name="norm/ReduceMean_1"),
        node("Add", ["variance", "epsilon"], ["safe"], name="norm/Add"),
        node("Sqrt", ["safe"], ["deviation"], name="norm/Sqrt"),
        node("Div", ["centred", "deviation"], ["normal"], name="norm/Div"),
        node("Softmax", ["normal"], ["weights"], name="attention/Softmax", axis=1),
        node("Mul", ["weights", "big"], ["weighted"], name="attention/Mul"),
        node("Conv", ["weighted", "w3"], ["c3"], name="head/Conv", strides=[4, 4]),
        node("Flatten", ["c3"], ["flat"], name="head/Flatten"),
        node("Gemm", ["flat", "w4"], ["logits"], name="head/Gemm"),
        node("Softmax", ["logits"], ["probabilities"], name="answer/Softmax", axis=1),
        node("TopK", ["probabilities", "k"], ["scores", "indices"], name="answer/TopK"),
        node("Cast", ["indices"], ["class_ids"], name="answer/Cast", to=TensorProto.INT32),
    ]
    constants = [
        values((8, 3, 8, 8), "w1", 0.002),
        values((8, 8, 1, 1), "w2"),
        values((8, 8, 4, 4), "w3"),
        values((128, 10), "w4"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(np.array(1e-6, np.float32), "epsilon"),
        numpy_helper.from_array(np.array([5], np.int64), "k"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    answers = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5]),
        helper.make_tensor_value_info("class_ids", TensorProto.INT32, ["batch", 5]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]),
    ]
    graph = helper.make_graph(nodes, "graph", [images], answers, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    mark_network_outputs(model, ["logits"])
    model.graph.output.append(answers[-1])  # an extra output of the recipe, too
    onnx.checker.check_model(model, full_check=True)
    return model
