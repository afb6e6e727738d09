"""Turns Col2Im into a transposed convolution, because TensorRT has no Col2Im; int8 leaves this node float.

`torch.nn.functional.fold` becomes Col2Im. Adding patches at their positions is a transposed convolution whose kernel
for pixel (i, j) of a patch is one at (i, j): pads, strides and dilations mean the same.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from saccade.export.graph.graph_rewrites import attribute, constants_of, drop_unused_constants, tensor_shapes

NODE_PREFIX = "patches_to_image"  # int8 represents ones exactly, but rounding what they copy gains nothing


def use_transposed_convolution_for_patches(model: onnx.ModelProto) -> int:
    """Rewrites every Col2Im of two constant spatial sizes; returns how many there were."""
    nodes = [node for node in model.graph.node if node.op_type == "Col2Im"]
    if not nodes:
        return 0
    constants, shapes = constants_of(model), tensor_shapes(model)
    count = 0
    for node in nodes:
        image, block = (constants.get(name) for name in node.input[1:3])
        columns = shapes.get(node.input[0], ())
        if image is None or block is None or len(image) != 2 or len(columns) != 3 or not isinstance(columns[1], int):
            continue
        _replace(model, node, [int(side) for side in image], [int(side) for side in block], columns[1])
        count += 1
    drop_unused_constants(model)
    return count


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, image: list[int], block: list[int], rows: int) -> None:
    strides, dilations = (list(attribute(node, name, [1, 1])) for name in ("strides", "dilations"))
    pads = list(attribute(node, "pads", [0, 0, 0, 0]))
    spans = [dilation * (side - 1) + 1 for dilation, side in zip(dilations, block, strict=True)]
    padded = [image[axis] + pads[axis] + pads[axis + 2] for axis in (0, 1)]
    counts = [(padded[axis] - spans[axis]) // strides[axis] + 1 for axis in (0, 1)]
    # A convolution leaves out pixels behind the last patch that fits; Col2Im leaves them zero.
    rest = [padded[axis] - spans[axis] - (counts[axis] - 1) * strides[axis] for axis in (0, 1)]
    pixels = block[0] * block[1]
    channels = rows // pixels
    kernel = np.tile(np.eye(pixels, dtype=np.float32).reshape(pixels, 1, *block), (channels, 1, 1, 1))
    prefix = f"{NODE_PREFIX}_{node.name}"
    shape = np.array([-1, rows, *counts], np.int64)
    model.graph.initializer.extend(
        [numpy_helper.from_array(kernel, f"{prefix}_kernel"), numpy_helper.from_array(shape, f"{prefix}_shape")]
    )
    reshape = helper.make_node(
        "Reshape", [node.input[0], f"{prefix}_shape"], [f"{prefix}_patches"], name=f"{prefix}_reshape"
    )
    transposed = helper.make_node(
        "ConvTranspose",
        [reshape.output[0], f"{prefix}_kernel"],
        [node.output[0]],
        name=prefix,
        group=channels,
        kernel_shape=block,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=rest,
    )
    position = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    model.graph.node.insert(position, transposed)
    model.graph.node.insert(position, reshape)
