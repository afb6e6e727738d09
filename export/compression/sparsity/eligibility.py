"""Chooses which layers become 2:4 from their shapes and places; every layer left dense gets a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from saccade.export.compression.sparsity.channel_elements import operator_name
from saccade.export.compression.sparsity.masks import GROUP
from saccade.export.compression.spec import SparsitySpec

WEIGHTED = ("conv2d", "linear")


@dataclass(frozen=True, slots=True)
class WeightedLayer:
    """One convolution or linear layer of a traced network."""

    layer: str  # path of the torch module, as in the ONNX node names
    weight: str  # its name in the state dict
    node: str
    shape: tuple[int, ...]  # shape of the weight
    groups: int
    reason: str  # why the layer stays dense; empty: it becomes 2:4

    @property
    def is_eligible(self) -> bool:
        return not self.reason


def weighted_layers(module: fx.GraphModule, ends: Sequence[str], spec: SparsitySpec) -> tuple[WeightedLayer, ...]:
    """Returns all layers in graph order; `ends` names the nodes that are the network's raw outputs."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    nodes = [node for node in module.graph.nodes if node.op == "call_function" and operator_name(node) in WEIGHTED]
    last = _last_layers(module, ends)
    uses: dict[str, int] = {}
    for node in nodes:
        uses[_weight_name(node)] = uses.get(_weight_name(node), 0) + 1
    return tuple(_judged(node, state, node.name in last, uses[_weight_name(node)], spec) for node in nodes)


def _judged(node: fx.Node, state: Mapping[str, Tensor], is_last: bool, uses: int, spec: SparsitySpec) -> WeightedLayer:
    weight = _weight_name(node)
    layer = weight.rpartition(".")[0]
    groups = node.args[6] if operator_name(node) == "conv2d" and len(node.args) > 6 else 1
    assert isinstance(groups, int)
    shape = tuple(state[weight].shape) if weight in state else ()
    reason = _reason_to_stay_dense(shape, groups, layer, is_last, uses, spec)
    return WeightedLayer(layer, weight, node.name, shape, groups, reason)


def _reason_to_stay_dense(
    shape: tuple[int, ...], groups: int, layer: str, is_last: bool, uses: int, spec: SparsitySpec
) -> str:
    if not shape:
        return "its weight is computed, not stored"
    filters, channels = shape[0], shape[1]
    if layer.startswith(spec.keep_dense):
        return "the recipe keeps it dense"
    if groups > 1:
        return "depthwise" if channels == 1 else f"{groups} groups"
    if channels <= 3:
        return "first layer: it reads pixels"
    if is_last:
        return "last layer: it gives the answer"
    if uses > 1:
        return f"its weight is used by {uses} layers"
    if channels % GROUP:
        return f"{channels} input channels are no multiple of {GROUP}"
    if channels < spec.min_input_channels:
        return f"{channels} input channels, fewer than {spec.min_input_channels}"
    if filters < spec.min_output_channels:
        return f"{filters} output channels, fewer than {spec.min_output_channels}"
    return ""


def _weight_name(node: fx.Node) -> str:
    weight = node.args[1]
    return str(weight.target) if isinstance(weight, fx.Node) and weight.op == "get_attr" else ""


def _last_layers(module: fx.GraphModule, ends: Sequence[str]) -> set[str]:
    """Returns the weighted nodes that reach a raw output without passing another weighted node."""
    nodes = {node.name: node for node in module.graph.nodes}
    pending = [nodes[name] for name in ends]
    seen: set[str] = set()
    found: set[str] = set()
    while pending:
        node = pending.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.op == "call_function" and operator_name(node) in WEIGHTED:
            found.add(node.name)
        else:
            pending.extend(node.all_input_nodes)
    return found
