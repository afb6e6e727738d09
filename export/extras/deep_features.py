"""Finds in a variant's graph the tensors that its deep features are read from, whoever made the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import onnx

from saccade.export.graph.onnx_graph import WEIGHTED_OPS, network_nodes, network_outputs
from saccade.models.contract.specs import Task

_MOST_MAPS = 2  # resolutions; each costs seven small operators, which a small network notices
_LEAST_POSITIONS = 128  # of a map: on fewer of them, its statistics are noise
_PASSED_THROUGH = frozenset({"DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity"})


@dataclass(frozen=True, slots=True)
class Feature:
    """What a layer with weights reads: a vector per image, or a map of them (channels at `axis`)."""

    tensor: str
    axis: int  # 1 for a convolution, -1 for a product


def vector_of(model: onnx.ModelProto, task: Task) -> Feature | None:
    """What the last classifier reads, or the vector that an embedder gives; None for tasks with an answer per place."""
    if task is Task.EMBED:
        return Feature(network_outputs(model)[0], 1)
    if task is not Task.CLASSIFY:
        return None
    layers = {node.output[0]: node for node in _layers(model)}
    producers = {name: node for node in model.graph.node for name in node.output}
    waiting = [network_outputs(model)[0]]
    while waiting:  # by the fewest steps back from the logits
        name = waiting.pop(0)
        if name in layers:
            return _read(layers[name])
        if name in producers:
            waiting.extend(producers[name].input)
    return None


def features_of(model: onnx.ModelProto) -> tuple[Feature, ...]:
    """What each layer of the network reads, in graph order; shapes are not known here."""
    return tuple(dict.fromkeys(_read(node) for node in _layers(model)))


def deepest(shapes: Mapping[Feature, tuple[int, ...]], images: int) -> tuple[Feature, ...]:
    """The last map at each of the coarsest resolutions, given the shapes of all for so many images."""
    by_positions: dict[int, Feature] = {}
    for feature, shape in shapes.items():
        # Windows of attention lie in the batch dimension: they are no maps of an image.
        if len(shape) in (3, 4) and shape[0] == images:
            positions = prod(shape[1:]) // shape[feature.axis]
            if positions >= _LEAST_POSITIONS:
                by_positions[positions] = feature
    return tuple(by_positions[positions] for positions in sorted(by_positions)[:_MOST_MAPS])


def _layers(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes that multiply what they read by constant weights, without convolutions by channel."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    inside = {node.name for node in network_nodes(model)}
    for node in model.graph.node:
        if node.op_type in _PASSED_THROUGH and node.input[0] in constants:
            constants.update(node.output)
        elif node.op_type in WEIGHTED_OPS and node.name in inside:
            is_grouped = any(each.name == "group" and each.i > 1 for each in node.attribute)
            if node.input[1] in constants and node.input[0] not in constants and not is_grouped:
                yield node


def _read(layer: onnx.NodeProto) -> Feature:
    return Feature(layer.input[0], 1 if layer.op_type.startswith("Conv") else -1)
