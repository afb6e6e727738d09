"""Writes static int8 graphs for CPUs: u8s8 Q/DQ with weights per channel, float decoding, and bytes read directly.

Activations are uint8 with a zero point, weights int8 symmetric: the numbers that ONNX Runtime's VNNI kernels multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from saccade.export.errors import GraphError
from saccade.export.graph.onnx_graph import weighted_part
from saccade.export.graph.rewrites.patches_to_image import NODE_PREFIX
from saccade.export.precision.quantization.thresholds import Range

# These operators have an int8 kernel or only move bytes. Softmax and products of two activations (attention)
# stay float: they take one per cent of the time and cause most of the error.
_WEIGHTED_OPS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ARITHMETIC_OPS = {"Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "AveragePool", "GlobalAveragePool", "MaxPool"}
_MOVING_OPS = {"Concat", "Split", "Slice", "Reshape", "Flatten", "Transpose", "Resize", "Pad"}
_QUANTIZED_OPS = frozenset(_WEIGHTED_OPS | _ARITHMETIC_OPS | _MOVING_OPS)
_CPUINFO = Path("/proc/cpuinfo")


def nodes_to_quantize(model: onnx.ModelProto, keep_float: tuple[str, ...]) -> list[str]:
    """Names the nodes up to the last weighted ones that have an int8 form, except those the recipe keeps float."""
    constants = {tensor.name for tensor in model.graph.initializer}
    floats = float_tensors(model)
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    return [
        node.name
        for node in weighted_part(model)
        if node.op_type in _QUANTIZED_OPS
        and node.output[0] in floats
        and not _feeds_from_bytes(model, node)
        and (node.op_type not in ("MatMul", "Mul") or _is_quantizable_product(node, constants))
        and not _is_bias_of_product(node, products, constants)
        and not node.name.startswith((NODE_PREFIX, *keep_float))
    ]


def observed_tensors(model: onnx.ModelProto, names: list[str]) -> list[str]:
    """Returns the activations that the named nodes read or write: those that need a range."""
    constants = {tensor.name for tensor in model.graph.initializer}
    floats = float_tensors(model) - constants
    chosen = set(names)
    return list(
        dict.fromkeys(
            name
            for node in model.graph.node
            if node.name in chosen
            for name in (*node.input, *node.output)
            if name in floats
        )
    )


def last_tensors(model: onnx.ModelProto, names: list[str]) -> set[str]:
    """What quantized nodes pass to the float rest: logits, whose largest values decide and must not be clipped."""
    chosen = set(names)
    inside = {name for node in model.graph.node if node.name in chosen for name in node.input}
    return {name for node in model.graph.node if node.name in chosen for name in node.output} - inside


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names all float32 tensors; integer tensors of shape arithmetic are left out."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}


def quantized(model: onnx.ModelProto, names: list[str], ranges: Mapping[str, Range], has_vnni: bool) -> onnx.ModelProto:
    """Returns a Q/DQ copy of `model`; a quantized first layer reads the uint8 input through DequantizeLinear alone.

    Raises GraphError when `names` is empty, because ONNX Runtime's quantizer would take that for all nodes.
    """
    if not names:
        raise GraphError("no node is left to quantize: shorten calibration.keep_float, or leave int8-cpu out")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    cast = pixel_cast(copy)
    known = {name: _tensor_data(chosen) for name, chosen in ranges.items()}
    if cast is not None:
        known[cast.output[0]] = _tensor_data(Range(0.0, 255.0))  # scale exactly 1, zero point 0
    quantizer = QDQQuantizer(
        copy,
        True,  # weights have scales per channel
        not has_vnni,  # without VNNI the 16-bit sums of u8s8 products saturate, so weights get 7 bits
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, known),
        names,
        [],
        sorted(_QUANTIZED_OPS),
        {
            "ActivationSymmetric": False,
            "WeightSymmetric": True,
            "QuantizeBias": True,
            "ForceQuantizeNoInputCheck": False,
            # Sums of 32 bits stay float: rounded to eight bits here, they would be rounded again behind the bias.
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # the quantizer appends Q/DQ nodes at the end
    result: onnx.ModelProto = quantizer.model.model
    if cast is not None:
        feed_pixels_directly(result, next(node for node in result.graph.node if cast.output[0] in node.output))
    return result


def feed_pixels_directly(model: onnx.ModelProto, cast: onnx.NodeProto) -> bool:
    """Turns Cast, Quantize (scale 1, zero 0), Dequantize into Dequantize: bytes already are the quantized values.

    Returns False, and changes nothing, when anything but one such Quantize reads the pixels.
    """
    readers = [node for node in model.graph.node if cast.output[0] in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return False
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    quantize = readers[0]
    scale, zero_point = (onnx.numpy_helper.to_array(constants[name]) for name in quantize.input[1:3])
    if float(scale) != 1.0 or int(zero_point) != 0:
        raise GraphError(f"pixels would be quantized with scale {scale} and zero point {zero_point}, not 1 and 0")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == quantize.output[0]:
                node.input[index] = cast.input[0]
    model.graph.node.remove(cast)
    model.graph.node.remove(quantize)
    return True


def pixel_cast(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Returns the Cast that turns transposed bytes into floats at the graph's front; None for another form of front."""
    transposed = [name for node in model.graph.node if "images" in node.input for name in node.output]
    casts: list[onnx.NodeProto] = [node for node in model.graph.node if node.op_type == "Cast"]
    return next((node for node in casts if node.input[0] in transposed), None)


def has_vnni(cpuinfo: Path = _CPUINFO) -> bool:
    """Returns whether this CPU multiplies u8s8 into 32 bits; True where nothing tells (no /proc, not x86)."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return True
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}
    return not flags or bool(flags & {"avx512_vnni", "avx_vnni"})


def _feeds_from_bytes(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Recognises the transpose of the uint8 images, whose output is bytes already."""
    return any(value.name in node.input for value in model.graph.input)


def _is_quantizable_product(node: onnx.NodeProto, constants: set[str]) -> bool:
    """MatMul needs a constant side; Mul must not have one, because a scale belongs into its neighbour."""
    has_constant = any(name in constants for name in node.input)
    return has_constant if node.op_type == "MatMul" else not has_constant


def _is_bias_of_product(node: onnx.NodeProto, products: set[str], constants: set[str]) -> bool:
    """Recognises a linear layer's bias, which would be rounded to eight bits; convolutions have their own."""
    has_product = any(name in products for name in node.input)
    return node.op_type == "Add" and has_product and any(name in constants for name in node.input)


def _tensor_data(chosen: Range) -> TensorData:
    return TensorData(lowest=np.array(chosen.low, np.float32), highest=np.array(chosen.high, np.float32))
