"""Makes the bare graph that a deploy graph is timed against: the same network with normalised float NCHW input.

An exporter without deploy wrapping would ship the bare graph, so `deploy / bare` shows what uint8 input costs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import attribute
from saccade.models.contract.specs import PreprocessSpec, TensorSpec

BARE_SCALE = 1.0 / 255.0  # the bare graph takes pixels / 255


def bare_input(preprocess: PreprocessSpec) -> TensorSpec:
    return TensorSpec(name="images", dtype="float32", shape=(3, preprocess.height, preprocess.width))


def bare_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns what a client of the bare graph would have to send for uint8 NHWC `images`."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) * np.float32(BARE_SCALE)


def bare_graph(deploy: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy without Transpose and byte input. Raises GraphError when the graph begins in another form.

    fp32: Transpose, Cast, Conv(w) becomes Conv(255 w).
    int8: Transpose, Dequantize becomes Quantize(1 / 255), Dequantize.
    """
    model = onnx.ModelProto()
    model.CopyFrom(deploy)
    transpose = _only(model, lambda node: "images" in node.input and not _counts_images(node), "Transpose")
    front = _only(model, lambda node: transpose.output[0] in node.input, "Cast", "DequantizeLinear")
    if front.op_type == "Cast":
        _take_normalised_floats(model, front)
        model.graph.node.remove(transpose)
    else:
        _quantize_floats(model, transpose)
    shape = [model.graph.input[0].type.tensor_type.shape.dim[index] for index in (0, 3, 1, 2)]
    dimensions = [dimension.dim_param or dimension.dim_value for dimension in shape]
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, dimensions))
    del model.graph.value_info[:]
    return model


def _counts_images(node: onnx.NodeProto) -> bool:
    """Tells whether a node reads only the batch size, which comes first in both layouts and may stay."""
    return node.op_type == "Shape" and attribute(node, "start", 0) == 0 and attribute(node, "end", None) == 1


def _take_normalised_floats(model: onnx.ModelProto, cast: onnx.NodeProto) -> None:
    convolution = _only(model, lambda node: cast.output[0] in node.input, "Conv")
    for tensor in model.graph.initializer:
        if tensor.name == convolution.input[1]:
            if uses_external_data(tensor):
                raise GraphError("the first convolution's weights lie beside the graph")
            weight = numpy_helper.to_array(tensor) / np.float32(BARE_SCALE)
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), tensor.name))
    convolution.input[0] = "images"
    model.graph.node.remove(cast)


def _quantize_floats(model: onnx.ModelProto, transpose: onnx.NodeProto) -> None:
    scale = numpy_helper.from_array(np.array(BARE_SCALE, np.float32), "bare_scale")
    zero_point = numpy_helper.from_array(np.array(0, np.uint8), "bare_zero_point")
    model.graph.initializer.extend([scale, zero_point])
    quantize = helper.make_node(
        "QuantizeLinear", ["images", scale.name, zero_point.name], [transpose.output[0]], name="bare_quantize"
    )
    position = list(model.graph.node).index(transpose)
    model.graph.node.remove(transpose)
    model.graph.node.insert(position, quantize)


def _only(model: onnx.ModelProto, condition: Callable[[onnx.NodeProto], bool], *op_types: str) -> onnx.NodeProto:
    """Returns the one node that meets the condition; its operator must be one of `op_types`."""
    found: list[onnx.NodeProto] = [node for node in model.graph.node if condition(node)]
    if len(found) != 1 or found[0].op_type not in op_types:
        raise GraphError(f"expected one of {op_types} at the graph's front, found {[node.op_type for node in found]}")
    return found[0]
