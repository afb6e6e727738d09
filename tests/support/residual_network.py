"""A small residual network as ONNX, for tests of quantization, with a node for every placement rule."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.onnx_graph import mark_network_outputs

SIDE = 8
CHANNELS = 16
ANSWERS = 5  # most likely of ten classes


def residual_network(opset: int = 20, sparse_layer: str | None = None) -> onnx.ModelProto:
    """Bytes (n, 8, 8, 3) through a stem, a block with a projection, a depthwise layer and a concatenation.

    The weights of `sparse_layer` are zero in two of every four input channels.
    """
    rng = np.random.default_rng(0)
    constants: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def conv(name: str, read: str, shape: tuple[int, int, int, int], group: int = 1) -> str:
        weight = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        if name == sparse_layer:
            weight[:, 0::4] = weight[:, 1::4] = 0.0
        constants.append(numpy_helper.from_array(weight, f"{name}.weight"))
        constants.append(numpy_helper.from_array(rng.normal(0, 0.1, shape[0]).astype(np.float32), f"{name}.bias"))
        pad = shape[2] // 2
        inputs = [read, f"{name}.weight", f"{name}.bias"]
        nodes.append(
            helper.make_node(
                "Conv", inputs, [name], name=f"{name}/Conv", group=group, pads=[pad] * 4, kernel_shape=shape[2:]
            )
        )
        return name

    def apply(op: str, name: str, *read: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(read), [name], name=f"{name}/{op}", **attributes))
        return name

    apply("Transpose", "planar", "images", perm=[0, 3, 1, 2])
    apply("Cast", "floats", "planar", to=TensorProto.FLOAT)
    stem = apply("Relu", "stem_active", conv("stem", "floats", (CHANNELS, 3, 3, 3)))
    pooled = apply("MaxPool", "pooled", stem, kernel_shape=[2, 2], strides=[2, 2])
    shortcut = conv("shortcut", pooled, (CHANNELS, CHANNELS, 1, 1))
    first = apply("Relu", "first_active", conv("first", pooled, (CHANNELS, CHANNELS, 3, 3)))
    summed = apply("Add", "summed", conv("second", first, (CHANNELS, CHANNELS, 3, 3)), shortcut)
    block = apply("Relu", "block", summed)
    wise = apply("Relu", "wise_active", conv("wise", block, (CHANNELS, 1, 3, 3), group=CHANNELS))
    narrow = apply("Slice", "narrow", block, "starts", "ends", "axes")
    grouped = conv("grouped", narrow, (CHANNELS, 4, 1, 1))
    joined = apply("Concat", "joined", wise, block, axis=1)
    last = conv("last", joined, (CHANNELS, 2 * CHANNELS, 1, 1))
    both = apply("Add", "both", last, grouped)
    mean = apply("Flatten", "flat", apply("GlobalAveragePool", "mean", both))
    constants += [
        numpy_helper.from_array(np.array([0], np.int64), "starts"),
        numpy_helper.from_array(np.array([4], np.int64), "ends"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(rng.normal(0, 0.3, (CHANNELS, 10)).astype(np.float32), "classify.weight"),
    ]
    nodes.append(helper.make_node("MatMul", [mean, "classify.weight"], ["raw"], name="classify/MatMul"))
    apply("Softmax", "shares", "raw", axis=-1)
    constants.append(numpy_helper.from_array(np.array([ANSWERS], np.int64), "answers"))
    nodes.append(helper.make_node("TopK", ["shares", "answers"], ["scores", "best"], name="head/TopK"))
    apply("Cast", "class_ids", "best", to=TensorProto.INT32)
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", ANSWERS]),
            helper.make_tensor_value_info("class_ids", TensorProto.INT32, ["batch", ANSWERS]),
            helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["batch", 10]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    mark_network_outputs(model, ["raw"])
    return model
