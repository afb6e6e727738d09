"""Parses a graph with TensorRT, strongly typed; every refusal names its node."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from saccade.export.errors import GraphError
from saccade.export.extras.marks import drop_extras
from saccade.export.graph.onnx_graph import layer_of
from saccade.export.graph.rewrites.byte_input import cast_bytes_first
from saccade.export.graph.rewrites.suppression_for_tensorrt import use_rounds_for_suppression
from saccade.export.plans.build_log import ParserError, listening, parser_reason, process_log

_ORIGIN = re.compile(r"\[ONNX Layer: (.*?)\]")
# These operators pass values on unchanged: a product behind them still reads quantized values.
_MOVES = frozenset({"concatenation", "identity", "pooling", "shuffle", "slice", "squeeze", "unsqueeze", "gather"})


@dataclass(frozen=True, slots=True)
class NetworkLayer:
    """One layer of the strongly typed network before it is built; the plan computes in its types."""

    node: str  # node of the graph; several layers may come from one node, and some from none
    kind: str  # TensorRT's layer type in lower case, as `convolution`
    inputs: tuple[str, ...]  # TensorRT's element types in lower case, as `half`
    outputs: tuple[str, ...]
    reads: tuple[str, ...] = ()  # like `inputs`, but the quantized type where an input comes out of a Dequantize layer


class Parsed:
    """A network definition parsed from a graph, with all objects that must outlive it."""

    def __init__(self, model: bytes | Path, tensorrt: ModuleType) -> None:
        proto, origin = _friendly(model)
        self.layers = {node.name: layer_of(node.name) for node in proto.graph.node}
        self.operators = {node.name: node.op_type for node in proto.graph.node}
        log = process_log(tensorrt)
        with listening(tensorrt) as heard:
            self.builder = tensorrt.Builder(log)
            self.network = self.builder.create_network(_strongly_typed(tensorrt))
            self._parser = tensorrt.OnnxParser(self.network, log)
            self._parser.parse(proto.SerializeToString(), origin)  # external weights are found relative to the path
        self.warnings = heard.shown_warnings()
        self.errors = tuple(self._error(self._parser.get_error(index)) for index in range(self._parser.num_errors))

    def dtypes(self) -> dict[str, int]:
        """Counts the layers by type."""
        layers = (self.network.get_layer(index) for index in range(self.network.num_layers))
        kinds = (layer.get_output(0).dtype.name.lower() for layer in layers if layer.num_outputs)
        return dict(sorted(Counter(kinds).items()))

    def network_layers(self) -> tuple[NetworkLayer, ...]:
        layers = [self.network.get_layer(index) for index in range(self.network.num_layers)]
        producers = {layer.get_output(index).name: layer for layer in layers for index in range(int(layer.num_outputs))}
        return tuple(_network_layer(layer, producers) for layer in layers)

    def _error(self, error: Any) -> ParserError:
        name = error.node_name()
        return ParserError(error.node_operator(), name, self.layers.get(name, ""), parser_reason(str(error.desc())))


def parser_errors(model: bytes | Path, tensorrt: ModuleType) -> tuple[ParserError, ...]:
    """Returns the nodes of a graph that TensorRT cannot take, without building."""
    return Parsed(model, tensorrt).errors


def network_layers(model: bytes | Path, tensorrt: ModuleType) -> tuple[NetworkLayer, ...]:
    """Returns the layers of the parsed network. Raises GraphError naming the first node that TensorRT refuses."""
    parsed = Parsed(model, tensorrt)
    if parsed.errors:
        raise GraphError(f"{tensorrt.__name__} refuses {refusal_text(parsed.errors[0])}")
    return parsed.network_layers()


def refusal_text(error: ParserError) -> str:
    """Returns text such as `Det 'network.stage.2/Det' of layer network.stage.2: no such operator`."""
    node = f"{error.operator} {error.node!r}".strip() if error.node else "the graph"
    layer = f" of layer {error.layer}" if error.layer else ""
    return f"{node}{layer}: {error.reason}"


def _friendly(model: bytes | Path) -> tuple[onnx.ModelProto, str]:
    """Rewrites the graph into operators that TensorRT has; returns it and the path that weights are relative to."""
    if isinstance(model, bytes):
        proto, origin = onnx.load_model_from_string(model), ""
    else:
        proto, origin = onnx.load(model, load_external_data=False), str(model)
    drop_extras(proto)  # a plan computes all outputs of its graph
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.UINT8 for value in proto.graph.input):
        cast_bytes_first(proto, proto.graph.input[0].name)
    use_rounds_for_suppression(proto)
    return proto, origin


def _strongly_typed(tensorrt: ModuleType) -> int:
    # Since version 11 every network is strongly typed, and the flag is gone
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _network_layer(layer: Any, producers: dict[str, Any]) -> NetworkLayer:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    origin = _ORIGIN.search(str(layer.metadata or ""))
    given = [tensor for tensor in inputs if tensor is not None]
    return NetworkLayer(
        node=origin.group(1) if origin else str(layer.name),
        kind=layer.type.name.lower(),
        inputs=tuple(tensor.dtype.name.lower() for tensor in given),
        outputs=tuple(tensor.dtype.name.lower() for tensor in outputs),
        reads=tuple(_stored_type(tensor, producers) for tensor in given),
    )


def _stored_type(tensor: Any, producers: dict[str, Any]) -> str:
    """Returns the type in which a value was last quantized, or its own."""
    producer = producers.get(tensor.name)
    while producer is not None:
        kind = producer.type.name.lower()
        source = producer.get_input(0)
        if kind == "dequantize" and source is not None:
            return str(source.dtype.name.lower())
        if kind not in _MOVES or source is None:
            break
        if kind == "concatenation":
            kinds = {_stored_type(producer.get_input(index), producers) for index in range(producer.num_inputs)}
            return kinds.pop() if len(kinds) == 1 else str(tensor.dtype.name.lower())
        producer = producers.get(source.name)
    return str(tensor.dtype.name.lower())
