"""Tells whether a graph's weights are quantized already, in any of the forms that quantizers write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from saccade.service.repository.layer_precision import INTEGER_PRODUCTS, WEIGHTED_OPS

_WEIGHT = 1  # position of the weight of a float operator
_BYTES = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True, slots=True)
class QuantizedWeights:
    """What shows that weights are quantized, and whether all of them are bytes."""

    sign: str  # an operator, or the layer of a weight
    is_int8: bool


def quantized_weights(model: onnx.ModelProto) -> QuantizedWeights | None:
    """Returns None for a graph whose weights are all float."""
    producers = {name: node for node in model.graph.node for name in node.output}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    signs: list[QuantizedWeights] = []
    for node in model.graph.node:
        if node.op_type in INTEGER_PRODUCTS:
            signs.append(QuantizedWeights(str(node.op_type), is_int8=True))
        elif node.op_type in WEIGHTED_OPS and len(node.input) > _WEIGHT:
            source = producers.get(node.input[_WEIGHT])
            if source is not None and source.op_type == "DequantizeLinear" and _is_constant(source, producers, types):
                kind = types.get(source.input[0], types.get(source.input[-1], TensorProto.UNDEFINED))
                signs.append(QuantizedWeights(f"the weights of {node.name or node.op_type}", kind in _BYTES))
    return None if not signs else QuantizedWeights(signs[0].sign, all(each.is_int8 for each in signs))


def _is_constant(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], types: Mapping[str, int]) -> bool:
    """Whether a value comes from a stored tensor: the other factor of a product may be an activation."""
    source = producers.get(node.input[0])
    is_rounded = source is not None and source.op_type == "QuantizeLinear" and source.input[0] in types
    return node.input[0] in types or is_rounded
