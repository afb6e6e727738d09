"""Turns a DFT of fixed length into a matrix product, because TensorRT has no DFT.

Along an axis of known length a transform is a constant matrix over (position, real or imaginary). One axis moves beside
the complex one, both become one axis, and a MatMul computes the transform. DFTs of other lengths are left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from saccade.export.graph.graph_rewrites import attribute, constants_of, drop_unused_constants, tensor_shapes

_AXIS_IS_AN_INPUT_SINCE = 20  # the opset that made `axis` an input


def use_products_for_fourier(model: onnx.ModelProto) -> int:
    """Rewrites every DFT whose axis and length are constant; returns how many there were."""
    count = 0
    for node in [node for node in model.graph.node if node.op_type == "DFT"]:
        constants, shapes = constants_of(model), tensor_shapes(model)  # each rewrite lets inference see further
        shape = shapes.get(node.input[0], ())
        axis = _axis(model, node, constants, len(shape)) if shape else None
        positions = 0 if axis is None else shape[axis]
        length = _length(node, constants, positions)
        if axis is None or not isinstance(positions, int) or length is None or not 0 < positions <= length:
            continue
        matrix = dft_matrix(
            positions,
            length,
            is_complex=shape[-1] == 2,
            is_inverse=bool(attribute(node, "inverse", 0)),
            is_onesided=bool(attribute(node, "onesided", 0)),
        )
        if matrix is not None:
            _replace(model, node, axis, len(shape), matrix)
            count += 1
    drop_unused_constants(model)
    return count


def dft_matrix(
    positions: int, length: int, *, is_complex: bool, is_inverse: bool, is_onesided: bool
) -> NDArray[np.float64] | None:
    """Returns the matrix (positions * parts, outputs * parts) over interleaved (real, imaginary) parts.

    The one-sided inverse takes the first half of a Hermitian spectrum and gives real numbers. Returns None for cases
    that ONNX does not define.
    """
    if is_inverse and is_onesided:
        return _real_inverse(positions, length) if is_complex else None
    outputs = length // 2 + 1 if is_onesided else length
    sign = 1.0 if is_inverse else -1.0
    angle = sign * 2.0 * np.pi * np.outer(np.arange(positions), np.arange(outputs)) / length
    scale = 1.0 / length if is_inverse else 1.0
    real, imaginary = np.cos(angle) * scale, np.sin(angle) * scale
    parts = [np.stack([real, imaginary], -1)]  # the transform of a real number
    if is_complex:
        parts.append(np.stack([-imaginary, real], -1))  # the transform of an imaginary number
    return np.stack(parts, 1).reshape(positions * len(parts), outputs * 2)


def _real_inverse(positions: int, length: int) -> NDArray[np.float64]:
    frequencies = np.arange(positions)
    angle = 2.0 * np.pi * np.outer(frequencies, np.arange(length)) / length
    # Frequencies other than the first and the middle one stand for their mirror image too.
    has_mirror = (frequencies > 0) & (2 * frequencies < length)
    weight = np.where(has_mirror, 2.0, 1.0)[:, None] / length
    return np.stack([weight * np.cos(angle), -weight * np.sin(angle)], 1).reshape(positions * 2, length)


def _length(node: onnx.NodeProto, constants: dict[str, NDArray[Any]], positions: int | str) -> int | None:
    """Returns the length of the transform; None when it is computed."""
    if len(node.input) < 2 or not node.input[1]:
        return positions if isinstance(positions, int) else None
    return int(constants[node.input[1]]) if node.input[1] in constants else None


def _axis(model: onnx.ModelProto, node: onnx.NodeProto, constants: dict[str, NDArray[Any]], rank: int) -> int | None:
    """Returns the axis of the transform; None when it is computed."""
    if model.opset_import[0].version < _AXIS_IS_AN_INPUT_SINCE:
        axis = int(attribute(node, "axis", 1))
    elif len(node.input) > 2 and node.input[2]:
        if node.input[2] not in constants:
            return None
        axis = int(constants[node.input[2]])
    else:
        axis = -2
    return axis if axis >= 0 else axis + rank


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, axis: int, rank: int, matrix: NDArray[np.float64]) -> None:
    order = [*(index for index in range(rank - 1) if index != axis), axis, rank - 1]
    back = [order.index(index) for index in range(rank)]
    name = f"{node.name}_as_product"
    parts = 1 if bool(attribute(node, "inverse", 0)) and bool(attribute(node, "onesided", 0)) else 2
    flat = np.array([0] * (rank - 2) + [-1], np.int64)
    apart = np.array([0] * (rank - 2) + [matrix.shape[1] // parts, parts], np.int64)
    constants: dict[str, NDArray[Any]] = {"matrix": matrix.astype(np.float32), "flat": flat, "apart": apart}
    model.graph.initializer.extend(numpy_helper.from_array(value, f"{name}_{key}") for key, value in constants.items())
    nodes = [
        helper.make_node("Transpose", [node.input[0]], [f"{name}_near"], name=f"{name}_gather", perm=order),
        helper.make_node("Reshape", [f"{name}_near", f"{name}_flat"], [f"{name}_rows"], name=f"{name}_flatten"),
        helper.make_node("MatMul", [f"{name}_rows", f"{name}_matrix"], [f"{name}_waves"], name=name),
        helper.make_node("Reshape", [f"{name}_waves", f"{name}_apart"], [f"{name}_parts"], name=f"{name}_unflatten"),
        helper.make_node("Transpose", [f"{name}_parts"], [node.output[0]], name=f"{name}_return", perm=back),
    ]
    position = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for made in reversed(nodes):
        model.graph.node.insert(position, made)
