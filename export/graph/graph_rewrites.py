"""Rewrites patterns of ONNX graphs into equal ones that ONNX Runtime runs faster; other graphs are left alone.

What each rewrite gains is measured in export/DECISIONS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import uses_external_data

_SMALLEST = np.finfo(np.float32).tiny  # 1e-38
_IMAGE_RANK = 4  # (n, channels, height, width)
_CHANNELS = 3


def use_global_pooling(model: onnx.ModelProto) -> None:
    """Turns ReduceMean over (height, width) into GlobalAveragePool: only the latter has an int8 kernel."""
    constants = constants_of(model)
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        if attribute(node, "keepdims", 1) == 1 and sorted(constants[node.input[1]].tolist()) in ([2, 3], [-2, -1]):
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]
    drop_unused_constants(model)


def use_constant_scales(model: onnx.ModelProto) -> None:
    """Gives constant scales to a Resize whose target size is computed per call, though only the batch varies."""
    resizes = [node for node in model.graph.node if node.op_type == "Resize" and len(node.input) == 4 and node.input[3]]
    constants = constants_of(model)
    for index, node in enumerate(resizes):
        # Each rewrite lets shape inference see one Resize further.
        shape = tensor_shapes(model).get(node.input[0], ())
        target = _spatial_target(model, node.input[3], constants)
        if target is None or len(shape) != 4 or not all(isinstance(side, int) and side > 0 for side in shape[2:]):
            continue
        scales = [1.0, 1.0, *(wanted / int(side) for wanted, side in zip(target, shape[2:], strict=True))]
        if any(scale != int(scale) for scale in scales):
            continue  # rounding of a fractional scale could change the output size
        name = f"resize_scales_{index}"
        model.graph.initializer.append(numpy_helper.from_array(np.array(scales, np.float32), name))
        node.input[2] = name
        del node.input[3:]
    drop_dead_nodes(model)


def use_elementwise_vector_product(model: onnx.ModelProto) -> None:
    """Turns MatMul with a constant vector into Mul and ReduceSum: MatMul computes one dot product at a time."""
    constants = constants_of(model)
    nodes = list(model.graph.node)
    for position in reversed(range(len(nodes))):
        node = nodes[position]
        if node.op_type != "MatMul" or constants.get(node.input[1], np.empty((0, 0))).ndim != 1:
            continue
        axes = numpy_helper.from_array(np.array([-1], np.int64), f"{node.name}_axes")
        model.graph.initializer.append(axes)
        product = helper.make_node("Mul", list(node.input), [f"{node.name}_product"], name=f"{node.name}_mul")
        total = helper.make_node(
            "ReduceSum", [product.output[0], axes.name], [node.output[0]], name=f"{node.name}_sum", keepdims=0
        )
        model.graph.node.remove(node)
        model.graph.node.insert(position, total)
        model.graph.node.insert(position, product)


def keep_zeros_around_max_pool(model: onnx.ModelProto) -> None:
    """Pads with the smallest positive number instead of zero where MaxPool reads the result.

    ONNX Runtime merges a Pad with zeros into MaxPool, whose own padding is minus infinity: another function wherever a
    whole window is negative (pre-activation networks; seen in 1.31). It does not merge a Pad whose value is not zero.
    """
    constants = constants_of(model)
    pads = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for pool in model.graph.node:
        pad = pads.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or attribute(pad, "mode", b"constant") != b"constant":
            continue
        value = pad.input[2] if len(pad.input) > 2 else ""
        if value and (value not in constants or constants[value] != 0):
            continue
        smallest = numpy_helper.from_array(np.array(_SMALLEST, np.float32), f"{pad.name}_smallest")
        model.graph.initializer.append(smallest)
        pad.input.extend([""] * (3 - len(pad.input)))
        pad.input[2] = smallest.name


def use_depthwise_for_batch_norm(model: onnx.ModelProto) -> None:
    """Turns a BatchNormalization without a convolution before it into a depthwise 1x1 one, which has an int8 kernel."""
    constants, shapes = constants_of(model), tensor_shapes(model)
    for node in list(model.graph.node):
        if node.op_type != "BatchNormalization" or any(name not in constants for name in node.input[1:]):
            continue
        if len(shapes.get(node.input[0], ())) != _IMAGE_RANK:
            continue  # vectors and sequences have no convolution over height and width
        scale, shift, mean, variance = (constants[name].astype(np.float64) for name in node.input[1:])
        factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        weight = numpy_helper.from_array(factor.astype(np.float32).reshape(-1, 1, 1, 1), f"{node.name}_weight")
        bias = numpy_helper.from_array((shift - mean * factor).astype(np.float32), f"{node.name}_bias")
        model.graph.initializer.extend([weight, bias])
        replacement = helper.make_node(
            "Conv",
            [node.input[0], weight.name, bias.name],
            [node.output[0]],
            name=f"{node.name}_depthwise",
            group=len(factor),
            kernel_shape=[1, 1],
        )
        position = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        model.graph.node.insert(position, replacement)
    drop_unused_constants(model)


def read_interleaved_pixels(model: onnx.ModelProto) -> bool:
    """Drops the Transpose in front of a float first convolution; False when the graph begins otherwise.

    A row of RGB pixels is a row of 3 w numbers of one channel, so a convolution over (3, h, w) is one over (1, h, 3 w)
    whose kernel, stride and padding are three times as wide: no byte is moved. The bytes become floats by
    DequantizeLinear with scale 1, which ONNX Runtime spreads over its threads; Cast it does not.
    """
    nodes = list(model.graph.node)
    transpose = next((node for node in nodes if "images" in node.input), None)
    cast = _single_reader(nodes, transpose)
    convolution = _single_reader(nodes, cast)
    constants = constants_of(model)
    if transpose is None or cast is None or convolution is None:
        return False
    kinds = (transpose.op_type, cast.op_type, convolution.op_type)
    weight = constants.get(convolution.input[1]) if len(convolution.input) > 1 else None
    if kinds != ("Transpose", "Cast", "Conv") or weight is None or weight.shape[1] != _CHANNELS:
        return False
    if attribute(convolution, "group", 1) != 1 or set(attribute(convolution, "dilations", [1, 1])) != {1}:
        return False
    if attribute(convolution, "auto_pad", b"NOTSET") != b"NOTSET":
        return False
    _widen(model, convolution, weight)
    height, width = (dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    shape = numpy_helper.from_array(np.array([-1, 1, height, _CHANNELS * width], np.int64), "interleaved_shape")
    model.graph.initializer.append(shape)
    reshape = helper.make_node("Reshape", ["images", shape.name], [transpose.output[0]], name="interleaved_rows")
    scale = numpy_helper.from_array(np.array(1.0, np.float32), "pixel_scale")
    zero_point = numpy_helper.from_array(np.array(0, np.uint8), "pixel_zero_point")
    model.graph.initializer.extend([scale, zero_point])
    floats = helper.make_node(
        "DequantizeLinear", [reshape.output[0], scale.name, zero_point.name], [cast.output[0]], name="pixels_as_float"
    )
    position = nodes.index(transpose)
    model.graph.node.remove(transpose)
    model.graph.node.remove(cast)
    model.graph.node.insert(position, floats)
    model.graph.node.insert(position, reshape)
    del model.graph.value_info[:]
    return True


def constants_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Returns the constants inside the graph; weights beside it are too large to be looked at."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if not uses_external_data(tensor)
    }


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Returns inferred shapes; a symbol where a dimension varies, 0 where it is unknown."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: tuple(side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def drop_dead_nodes(model: onnx.ModelProto) -> None:
    """Removes nodes and constants that no output needs."""
    while True:
        used = _names_read(model.graph) | {out.name for out in model.graph.output}
        dead = [node for node in model.graph.node if not used.intersection(node.output)]
        for node in dead:
            model.graph.node.remove(node)
        if not dead:
            break
    drop_unused_constants(model)


def drop_unused_constants(model: onnx.ModelProto) -> None:
    used = _names_read(model.graph)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def _names_read(graph: onnx.GraphProto) -> set[str]:
    """Returns the tensors that some node reads; bodies of loops and branches also read those around them."""
    names = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for each in node.attribute:
            if each.HasField("g"):
                names |= _names_read(each.g) | {output.name for output in each.g.output}
    return names


def _spatial_target(model: onnx.ModelProto, sizes: str, constants: dict[str, NDArray[Any]]) -> tuple[int, int] | None:
    """Returns height and width from the end of a `Concat(Shape(…), [height, width])`, or from a constant."""
    if sizes in constants:
        return int(constants[sizes][2]), int(constants[sizes][3])
    producer = next((node for node in model.graph.node if sizes in node.output), None)
    if producer is None or producer.op_type != "Concat" or producer.input[-1] not in constants:
        return None
    tail = constants[producer.input[-1]]
    return (int(tail[-2]), int(tail[-1])) if len(tail) >= 2 else None


def _single_reader(nodes: Sequence[onnx.NodeProto], node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    """Returns the only node that reads another's output."""
    if node is None:
        return None
    readers = [reader for reader in nodes if node.output[0] in reader.input]
    return readers[0] if len(readers) == 1 else None


def _widen(model: onnx.ModelProto, convolution: onnx.NodeProto, weight: NDArray[Any]) -> None:
    """Reshapes a kernel (o, 3, kh, kw) to (o, 1, kh, 3 kw) and triples stride and padding along the width."""
    outputs, _, height, width = weight.shape
    strides = attribute(convolution, "strides", [1, 1])
    top, left, bottom, right = attribute(convolution, "pads", [0, 0, 0, 0])
    del convolution.attribute[:]
    convolution.attribute.extend(
        [
            helper.make_attribute("kernel_shape", [height, _CHANNELS * width]),
            helper.make_attribute("strides", [strides[0], _CHANNELS * strides[1]]),
            helper.make_attribute("pads", [top, _CHANNELS * left, bottom, _CHANNELS * right]),
        ]
    )
    wide = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(outputs, 1, height, _CHANNELS * width)
    model.graph.initializer.append(numpy_helper.from_array(wide, "interleaved_weight"))
    convolution.input[1] = "interleaved_weight"
    drop_unused_constants(model)
