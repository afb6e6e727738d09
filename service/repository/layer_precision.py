"""Tells in which precision a graph multiplies: pure, for the exporter's graphs and for those that a server reads.

A product counts as int8 or fp8 only when both its sides come out of DequantizeLinear of that type; operators that only
move values may lie between for activations, but not for weights. Operators that multiply integers are int8.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from saccade.service.repository.onnx_graph import OnnxGraph

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
FLOAT, UINT8, INT8, FLOAT16, BFLOAT16, FLOAT8E4M3FN = 1, 2, 3, 10, 16, 17  # of TensorProto.DataType
PRECISIONS: Mapping[int, Precision] = {
    FLOAT16: "fp16",
    BFLOAT16: "bf16",
    INT8: "int8",
    UINT8: "int8",
    FLOAT8E4M3FN: "fp8",
}
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")
WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that multiply integers themselves, as int8; by each the position of its weight. The image comes first.
INTEGER_PRODUCTS: Mapping[str, int] = {
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
}
# These operators pass values on unchanged, so a product behind them still reads quantized values.
MOVING_OPS = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_PASSED_BY_WEIGHTS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity"})


class Node(Protocol):
    """What is asked of a node, also of onnx.NodeProto."""

    @property
    def op_type(self) -> str: ...
    @property
    def input(self) -> Sequence[str]: ...


NodeT = TypeVar("NodeT", bound=Node)


class ProductSides(Generic[NodeT]):
    """Follows the sides of products to the constants and quantized values that they come from."""

    def __init__(
        self, producers: Mapping[str, NodeT], constants: Container[str], element_type: Callable[[str], int]
    ) -> None:
        """`constants` are the names of stored tensors; `element_type` gives a tensor's type, 0 where it is unknown."""
        self._producers = producers
        self._constants = constants
        self._element_type = element_type
        self._sides: dict[str, Precision | None] = {}  # what was found by name, because ways may branch and meet again

    def quantized(self, node: NodeT) -> Precision | None:
        """The quantized type of a product; None for floats."""
        if node.op_type in INTEGER_PRODUCTS:
            return "int8"
        first, second = (self._side(name) for name in node.input[:2])
        return first if first == second else None

    def stored(self, name: str) -> str | None:
        """The constant that a weight is read from, through nodes that only change its form; None for activations."""
        while name not in self._constants:
            producer = self._producers.get(name)
            if producer is None or producer.op_type not in _PASSED_BY_WEIGHTS:
                return None
            name = producer.input[0]
        return name

    def _side(self, name: str) -> Precision | None:
        """The quantized type that one side of a product was dequantized from; None for floats."""
        if name not in self._sides:
            self._sides[name] = self._found_side(name)
        return self._sides[name]

    def _found_side(self, name: str) -> Precision | None:
        producer = self._producers.get(name)
        if self.stored(name) is not None:  # a weight: no node may lie between it and its product
            return self._dequantized(producer)
        while producer is not None and producer.op_type in MOVING_OPS:
            if producer.op_type == "Concat":
                kinds = {self._side(each) for each in producer.input}
                return kinds.pop() if len(kinds) == 1 else None
            producer = self._producers.get(producer.input[0])
        return self._dequantized(producer)

    def _dequantized(self, producer: NodeT | None) -> Precision | None:
        if producer is None or producer.op_type != "DequantizeLinear":
            return None
        kind = PRECISIONS.get(self._element_type(producer.input[0]))
        return kind if kind in QUANTIZED else None


def weighted_precisions(graph: OnnxGraph) -> dict[str, Precision]:
    """The precision of every product with a constant side, by node; the others need types of activations."""
    types = _KnownTypes(graph)
    sides = ProductSides(graph.producers, graph.constants, types.of)
    found: dict[str, Precision] = {}
    for node in graph.nodes:
        if node.op_type in INTEGER_PRODUCTS and sides.stored(node.input[INTEGER_PRODUCTS[node.op_type]]) is not None:
            found[node.name] = "int8"
        elif node.op_type in WEIGHTED_OPS:
            weights = [name for name in node.input[:2] if sides.stored(name) is not None]
            if weights:
                # Products have one type: where it is not quantized, the weight's is that of the activations, too.
                floats = PRECISIONS.get(types.of(weights[-1]), "fp32")
                found[node.name] = sides.quantized(node) or (floats if floats not in QUANTIZED else "fp32")
    return found


class _KnownTypes:
    """Types of inputs, constants and what only changes their form; no inference."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph

    def of(self, name: str) -> int:
        if name in self._graph.constants:
            return self._graph.constants[name].element_type
        if name in self._graph.input_types:
            return self._graph.input_types[name]
        node = self._graph.producers.get(name)
        match node.op_type if node else "":
            case "Cast" if node:
                return node.integers.get("to", 0)
            case "DequantizeLinear" if node:
                return self.of(node.input[1])
            case "QuantizeLinear" if node and len(node.input) > 2 and node.input[2]:
                return self.of(node.input[2])
            case "QuantizeLinear" if node:
                return node.integers.get("output_dtype") or UINT8
            case "Transpose" | "Reshape" | "Identity" if node:
                return self.of(node.input[0])
        return 0
