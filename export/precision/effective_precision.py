"""Tells in which precision each layer of a graph multiplies, read from the types of its tensors.

TensorRT is strongly typed, so the plan has the types of the ONNX file; `network_precisions` asks TensorRT itself. FLOPs
count a multiplication with its addition as two (Designing Network Design Spaces, On the Efficiency of CNNs),
activations are the outputs of weighted layers (Fast and Accurate Model Scaling).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from saccade.export.errors import GraphError
from saccade.export.graph.graph_rewrites import attribute
from saccade.export.graph.onnx_graph import WEIGHTED_OPS, layer_of, network_nodes
from saccade.export.plans.tensorrt_from_onnx import NetworkLayer, find_tensorrt, network_layers
from saccade.export.precision.concrete_shapes import concrete_shapes, without_weights
from saccade.export.variants import Precision
from saccade.service.repository.layer_precision import INTEGER_PRODUCTS, PRECISIONS, QUANTIZED, ProductSides


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """One layer that multiplies, with its precision and its work."""

    node: str
    op: str
    layer: str  # layer of the torch network; empty when the graph does not come from one
    precision: Precision  # the precision in which it multiplies
    flops: int  # multiplications and additions per image
    activations: int  # output elements per image
    weights: int  # elements of the weight; 0 for a product of two activations
    weight_bytes: int  # as stored in the file


@dataclass(frozen=True, slots=True)
class NodeTypes:
    """One node and the element types of its outputs, spelled as ONNX does, in lower case."""

    node: str
    op: str
    dtypes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrecisionMismatch:
    """A layer whose precision differs between the file and the network that TensorRT parsed from it."""

    node: str
    in_file: Precision
    in_network: str


def layer_precisions(model: onnx.ModelProto) -> tuple[LayerPrecision, ...]:
    """Returns all convolutions and matrix products in graph order.

    A layer counts as int8 or fp8 only when both its sides come out of DequantizeLinear of that type; operators that
    only move values may lie between for activations, but not for weights. Operators that multiply integers are int8.
    Raises GraphError when the graph does not say how large a layer is.
    """
    graph = _LayerReader(model)
    wanted = WEIGHTED_OPS | INTEGER_PRODUCTS.keys()
    return tuple(graph.layer(node) for node in model.graph.node if node.op_type in wanted)


def share_in(layers: Iterable[LayerPrecision], precision: Precision) -> float:
    """Returns the share of all FLOPs that is multiplied in `precision`; 0 for a graph that multiplies nothing."""
    counted = tuple(layers)
    total = sum(layer.flops for layer in counted)
    return sum(layer.flops for layer in counted if layer.precision == precision) / total if total else 0.0


def layers_of_network(model: onnx.ModelProto, layers: Iterable[LayerPrecision]) -> tuple[LayerPrecision, ...]:
    """Leaves out products of the answer head, whose precision no variant claims."""
    names = {node.name for node in network_nodes(model)}
    return tuple(layer for layer in layers if layer.node in names)


def dtype_table(model: onnx.ModelProto) -> tuple[NodeTypes, ...]:
    """Returns every node of the graph with its output types, in graph order."""
    types = element_types(model)
    return tuple(
        NodeTypes(node.name, node.op_type, tuple(_type_name(types.get(name, 0)) for name in node.output if name))
        for node in model.graph.node
    )


def dtype_counts(table: Sequence[NodeTypes]) -> dict[str, int]:
    """Counts the nodes by the type of their first output."""
    counts: dict[str, int] = {}
    for row in table:
        kind = row.dtypes[0] if row.dtypes else "none"
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def network_precisions(model: bytes | Path) -> tuple[NetworkLayer, ...] | None:
    """Returns the layers of the strongly typed network that TensorRT parses; None when no TensorRT is installed.

    Raises GraphError, naming the node, when TensorRT refuses the graph.
    """
    tensorrt = find_tensorrt()
    return None if tensorrt is None else network_layers(model, tensorrt)


def precision_mismatches(
    layers: Iterable[LayerPrecision], network: Iterable[NetworkLayer]
) -> tuple[PrecisionMismatch, ...]:
    """Returns layers whose type in TensorRT's network differs from the file's; a layer it lost is `missing`.

    Quantized layers are skipped: TensorRT types them as float, and the Dequantize layers in front make them int8.
    """
    found = {each.node: each for each in network if each.kind in ("convolution", "deconvolution", "matrix_multiply")}
    wanted = [layer for layer in layers if layer.precision not in QUANTIZED]
    return tuple(
        PrecisionMismatch(layer.node, layer.precision, _multiplies_in(found.get(layer.node)))
        for layer in wanted
        if _multiplies_in(found.get(layer.node)) != layer.precision
    )


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor and constant, by inference, so that a wrong `value_info` has no effect."""
    graph = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in model.graph.initializer
    }


class _LayerReader:
    """Types, shapes for one image, and producers of all tensors of one graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and (tensor := _constant_tensor(node)) is not None:
                self._tensors[node.output[0]] = tensor
        self._shapes = concrete_shapes(model)
        self._types = element_types(model)
        producers = {name: node for node in model.graph.node for name in node.output}
        self._sides = ProductSides(producers, self._tensors, lambda name: self._types.get(name, 0))

    def layer(self, node: onnx.NodeProto) -> LayerPrecision:
        weight = self._stored(node.input[_weight_position(node)])
        return LayerPrecision(
            node=node.name,
            op=node.op_type,
            layer=layer_of(node.name),
            precision=self._precision(node),
            flops=self._flops(node),
            activations=math.prod(self._shape(node, node.output[0])),
            weights=0 if weight is None else math.prod(weight.dims),
            weight_bytes=0 if weight is None else math.prod(weight.dims) * _element_bytes(weight.data_type),
        )

    def _precision(self, node: onnx.NodeProto) -> Precision:
        quantized = self._sides.quantized(node)
        if quantized is not None:
            return quantized
        types = {PRECISIONS.get(self._types.get(name, 0), "fp32") for name in node.input[:2]}
        kinds = types - set(QUANTIZED)
        return kinds.pop() if len(kinds) == 1 else "fp32"

    def _stored(self, name: str) -> onnx.TensorProto | None:
        """Returns the stored tensor that a weight is read from, through nodes that only change its form."""
        found = self._sides.stored(name)
        return None if found is None else self._tensors[found]

    def _flops(self, node: onnx.NodeProto) -> int:
        outputs = math.prod(self._shape(node, node.output[0]))
        first, second = (self._shape(node, node.input[place]) for place in (0, _weight_position(node)))
        if node.op_type in ("Conv", "QLinearConv", "ConvInteger"):
            return 2 * outputs * math.prod(second[1:])
        if node.op_type == "ConvTranspose":
            return 2 * math.prod(first) * math.prod(second[1:])
        depth = first[0] if node.op_type in ("Gemm", "QGemm") and attribute(node, "transA", 0) else first[-1]
        return 2 * outputs * depth

    def _shape(self, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
        shape = self._shapes.get(name)
        if shape is None or any(side <= 0 for side in shape):
            raise GraphError(
                f"the size of {name!r} at {node.op_type} {node.name!r} is {shape or 'unknown'} for one image, so its "
                "FLOPs cannot be counted: give the graph constant shapes apart from the batch"
            )
        return shape


def _weight_position(node: onnx.NodeProto) -> int:
    return INTEGER_PRODUCTS.get(node.op_type, 1)


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    found: list[onnx.TensorProto] = [each.t for each in node.attribute if each.name == "value"]
    return found[0] if found else None


def _multiplies_in(layer: NetworkLayer | None) -> str:
    if layer is None:
        return "missing"
    kinds = set(layer.inputs)
    return _NETWORK_PRECISIONS.get(kinds.pop(), "mixed") if len(kinds) == 1 else "mixed"


_NETWORK_PRECISIONS = {"float": "fp32", "half": "fp16", "bf16": "bf16"}


def _element_bytes(data_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def _type_name(data_type: int) -> str:
    return str(TensorProto.DataType.Name(data_type)).lower() if data_type else "unknown"
