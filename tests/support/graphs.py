"""Tiny deploy graphs for the onnxruntime backend. Their answers can be computed by hand from the pixels."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import onnx_opset_version

from tests.support.versions import SIDE

_OPSET = min(21, onnx_opset_version())


def _model(
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
    side: int = SIDE,
) -> bytes:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", side, side, 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _brightness() -> list[onnx.NodeProto]:
    """`red` (n, 1): mean red of each image, 0 to 1."""
    return [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "rows_columns"], ["mean"], keepdims=0),
        helper.make_node("Slice", ["mean", "zero", "one", "one"], ["red_255"]),
        helper.make_node("Div", ["red_255", "full"], ["red"]),
    ]


_CONSTANTS = {
    "rows_columns": np.array([1, 2], np.int64),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "full": np.array(255, np.float32),
}


def classifier_graph() -> bytes:
    """Class c of 10 scores 1 - |red - c / 10|: best is the class nearest to ten times the mean red."""
    nodes = [
        *_brightness(),
        helper.make_node("Sub", ["red", "centres"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["absolute"]),
        helper.make_node("Sub", ["unit", "absolute"], ["all_scores"]),
        helper.make_node("TopK", ["all_scores", "ten"], ["scores", "ids_64"], axis=1),
        helper.make_node("Cast", ["ids_64"], ["class_ids"], to=TensorProto.INT32),
    ]
    constants = {
        **_CONSTANTS,
        "centres": (np.arange(10, dtype=np.float32) / 10)[np.newaxis],
        "unit": np.array(1, np.float32),
        "ten": np.array([10], np.int64),
    }
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10]),
        helper.make_tensor_value_info("class_ids", TensorProto.INT32, ["n", 10]),
    ]
    return _model(nodes, outputs, constants)


def embedder_graph() -> bytes:
    """The mean colour of each image as a vector of length 1; of a black one, zeros."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "rows_columns"], ["mean"], keepdims=0),
        helper.make_node("ReduceL2", ["mean", "one"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "least"], ["divisor"]),
        helper.make_node("Div", ["mean", "divisor"], ["embedding"]),
    ]
    constants = {
        "rows_columns": np.array([1, 2], np.int64),
        "one": np.array([1], np.int64),
        "least": np.array(1e-6, np.float32),
    }
    return _model(nodes, [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])], constants)


def image_graph(side: int = SIDE, scale: int = 1) -> bytes:
    """The picture blurred over 3x3 pixels, black beyond its border; each pixel repeated `scale` times on both sides."""
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[range(3), range(3)] = np.float32(1 / 9 / 255)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["blurred"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["blurred", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Transpose", ["large"], ["image"], perm=[0, 2, 3, 1]),
    ]
    constants = {"kernel": kernel, "scales": np.array([1, 1, scale, scale], np.float32)}
    output = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", side * scale, side * scale, 3])
    return _model(nodes, [output], constants, side)


BOX = (8.0, 12.0, 24.0, 20.0)  # what the detector finds first, model pixels


def detector_graph() -> bytes:
    """Finds BOX as class 7 with score 0.9 and a smaller one as class 3 with the mean red; 6 rows are padding."""
    return _model(*_detections())


def instances_graph() -> bytes:
    """The detector's objects: the mask of BOX is what lies right of the middle, that of the other one is empty."""
    nodes, outputs, constants = _detections()
    side = SIDE // 4
    coefficients = np.zeros((1, 8, 2), np.float32)
    coefficients[0, :2] = ((0, 1), (-1, 0))
    prototypes = np.ones((1, 2, side, side), np.float32)
    prototypes[0, 1, :, : side // 2] = -1
    nodes += [
        helper.make_node("Add", ["cube_zero", "all_coefficients"], ["coefficients"]),
        helper.make_node("Unsqueeze", ["cube_zero", "three_axis"], ["map_zero"]),
        helper.make_node("Add", ["map_zero", "all_prototypes"], ["prototypes"]),
    ]
    constants |= {
        "all_coefficients": coefficients,
        "all_prototypes": prototypes,
        "three_axis": np.array([3], np.int64),
    }
    outputs += [
        helper.make_tensor_value_info("coefficients", TensorProto.FLOAT, ["n", 8, 2]),
        helper.make_tensor_value_info("prototypes", TensorProto.FLOAT, ["n", 2, side, side]),
    ]
    return _model(nodes, outputs, constants)


def _detections() -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto], dict[str, np.ndarray]]:
    boxes = np.zeros((1, 8, 4), np.float32)
    boxes[0, 0] = BOX
    boxes[0, 1] = (0.0, 8.0, 4.0, 12.0)
    class_ids = np.zeros((1, 8), np.int32)
    class_ids[0, :2] = (7, 3)
    nodes = [
        *_brightness(),
        helper.make_node("Mul", ["red", "float_zero"], ["red_zero"]),
        helper.make_node("Add", ["red_zero", "best"], ["first"]),
        helper.make_node("Expand", ["red_zero", "six_shape"], ["padding_row"]),
        helper.make_node("Add", ["padding_row", "six_zeros"], ["padding"]),
        helper.make_node("Concat", ["first", "red", "padding"], ["scores"], axis=1),
        helper.make_node("Unsqueeze", ["red_zero", "two_axis"], ["cube_zero"]),
        helper.make_node("Add", ["cube_zero", "all_boxes"], ["boxes"]),
        helper.make_node("Cast", ["red_zero"], ["int_zero"], to=TensorProto.INT32),
        helper.make_node("Add", ["int_zero", "all_ids"], ["class_ids"]),
        helper.make_node("Squeeze", ["int_zero", "one"], ["flat_zero"]),
        helper.make_node("Add", ["flat_zero", "two"], ["counts"]),
    ]
    constants = {
        **_CONSTANTS,
        "float_zero": np.array(0, np.float32),
        "best": np.array(0.9, np.float32),
        "six_shape": np.array([1, 6], np.int64),
        "six_zeros": np.zeros((1, 6), np.float32),
        "two_axis": np.array([2], np.int64),
        "all_boxes": boxes,
        "all_ids": class_ids,
        "two": np.array(2, np.int32),
    }
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 8, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8]),
        helper.make_tensor_value_info("class_ids", TensorProto.INT32, ["n", 8]),
        helper.make_tensor_value_info("counts", TensorProto.INT32, ["n"]),
    ]
    return nodes, outputs, constants


def segmenter_graph() -> bytes:
    """Class of a pixel: 3 where its red is at least 128, else 0 (background)."""
    nodes = [
        helper.make_node("Slice", ["images", "zero", "one", "channel_axis"], ["red"]),
        helper.make_node("Squeeze", ["red", "channel_axis"], ["plane"]),
        helper.make_node("Cast", ["plane"], ["values"], to=TensorProto.INT32),
        helper.make_node("GreaterOrEqual", ["values", "threshold"], ["is_bright"]),
        helper.make_node("Where", ["is_bright", "three", "nought"], ["classes"]),
        helper.make_node("Cast", ["classes"], ["mask"], to=TensorProto.UINT8),  # last, which is all TensorRT takes
    ]
    constants = {
        "zero": _CONSTANTS["zero"],
        "one": _CONSTANTS["one"],
        "channel_axis": np.array([3], np.int64),
        "threshold": np.array(128, np.int32),
        "three": np.array(3, np.int32),
        "nought": np.array(0, np.int32),
    }
    return _model(nodes, [helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", SIDE, SIDE])], constants)


def slowed(graph: bytes, sines: int = 20) -> bytes:
    """The same answers, after so many sines of the pixels."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]
    chain = [helper.make_node("Cast", ["images"], ["sine_0"], to=TensorProto.FLOAT)]
    chain += [helper.make_node("Sin", [f"sine_{count}"], [f"sine_{count + 1}"]) for count in range(sines)]
    chain += [
        helper.make_node("Abs", [f"sine_{sines}"], ["below_one"]),
        helper.make_node("Cast", ["below_one"], ["zeros"], to=TensorProto.UINT8),
        helper.make_node("Max", ["images", "zeros"], ["pixels"]),
    ]
    nodes = [*chain, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def depth_graph() -> bytes:
    """A tenth of each pixel's red."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "last"], ["depth"], keepdims=0),
    ]
    constants = {"weights": np.array([0.1, 0, 0], np.float32), "last": np.array([3], np.int64)}
    output = helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["n", SIDE, SIDE])
    return _model(nodes, [output], constants)
