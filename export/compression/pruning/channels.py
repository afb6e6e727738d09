"""Finds which channels of a traced network may be removed together.

The bundles are those of `export/compression/sparsity/channel_groups.py`, after the dependency groups of DepGraph
(Fang et al., arXiv 2301.12900). A bundle that may change places may also leave, unless an operator looks at their
number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from saccade.export.compression.sparsity.channel_elements import Elements, operator_name
from saccade.export.compression.sparsity.channel_groups import group_of, interchangeable_bundles
from saccade.export.compression.sparsity.channel_rules import apply_rules

IntArray = NDArray[np.int64]
_AXES_ARGUMENT = {"mean": 1, "sum": 1, "amax": 1, "amin": 1, "softmax": 1, "log_softmax": 1}


@dataclass(frozen=True, slots=True, eq=False)
class PrunableGroup:
    """Bundles of channels; each bundle may be removed without the others."""

    layers: tuple[str, ...]  # the layers whose output channels these are
    elements: IntArray  # (bundles, k): the elements that are removed with each bundle
    # (parameter, axis) to (bundles, k): the bundle's indices on that axis
    positions: Mapping[tuple[str, int], IntArray]

    @property
    def size(self) -> int:
        return len(self.elements)


def network_elements(module: fx.GraphModule) -> Elements:
    """Returns the network's joins and pins; every axis whose length an operator depends on is pinned."""
    elements = apply_rules(module)
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            _pin_counted(elements, node)
    return elements


def prunable_groups(module: fx.GraphModule, elements: Elements, keep_dense: tuple[str, ...]) -> list[PrunableGroup]:
    """Returns every group that some layer computes, except those of layers that `keep_dense` names by prefix."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    groups: list[PrunableGroup] = []
    for rows in interchangeable_bundles(elements):
        positions = group_of(elements, rows, set(state)).positions
        weights = {name for name, axis in positions if axis == 0 and state[name].ndim > 1}
        layers = tuple(sorted(name.rpartition(".")[0] for name in weights))
        if layers and not any(layer.startswith(keep_dense) for layer in layers):
            groups.append(PrunableGroup(layers, rows, positions))
    return groups


def _pin_counted(elements: Elements, node: fx.Node) -> None:
    """Pins (in `elements`) axes that the operator normalises, reduces, compares or contracts: they keep their
    length.
    """
    name = operator_name(node)
    sources = [elements.of(source) for source in node.all_input_nodes]
    if name == "layer_norm":
        elements.pin(sources[0][-1])
    elif name in _AXES_ARGUMENT:
        axes = node.args[_AXES_ARGUMENT[name]] if len(node.args) > 1 else node.kwargs.get("dim")
        for axis in axes if isinstance(axes, (list, tuple)) else [axes]:
            if isinstance(axis, int):
                elements.pin(sources[0][axis])
    elif name == "scaled_dot_product_attention" or (  # its scale is the width of a head
        name in ("matmul", "bmm") and all(source.op != "get_attr" for source in node.all_input_nodes)
    ):
        elements.pin(sources[0][-1])
