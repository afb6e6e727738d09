"""Narrows a traced network to a budget of multiply-adds, and proves that silencing the channels answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from saccade.export.compression.pruning.channels import PrunableGroup, network_elements, prunable_groups
from saccade.export.compression.pruning.costs import counted_multiply_adds, layer_costs
from saccade.export.compression.pruning.importance import gate_gradients, importances
from saccade.export.compression.pruning.narrowing import narrowed, silenced
from saccade.export.compression.pruning.selection import (
    Bounds,
    IntArray,
    PruningCandidate,
    Selection,
    multiply_adds,
    select,
)
from saccade.export.compression.sparsity.channel_elements import Elements
from saccade.export.compression.spec import PruningSpec
from saccade.export.compression.traced_network import PROOF_IMAGES, TracedNetwork, ensure_function_kept
from saccade.export.errors import GraphError

BoolArray = NDArray[np.bool_]


def narrow_network(network: TracedNetwork, images: Tensor, spec: PruningSpec) -> tuple[fx.GraphModule, float]:
    """Returns the network within the budget, and how far its answers are from those of the network with the same
    channels silenced; `images` choose them, and the first four prove it.

    Raises GraphError when too few channels may leave, or naming the layers whose channels cannot leave.
    """
    module = network.module
    elements = network_elements(module)
    groups = prunable_groups(module, elements, spec.keep_dense)
    chosen = _chosen(network, groups, images, spec)
    removed, images = removed_elements(elements, groups, chosen.removed), images[:PROOF_IMAGES]
    try:
        return narrowed(module, elements, removed), _proven(network, elements, removed, images)
    except (GraphError, RuntimeError) as error:  # torch raises RuntimeError for shapes that do not fit
        culprit = _culprit(network, elements, groups, chosen.removed, images)
        layers = ", ".join(culprit.layers) if culprit else "several layers together"
        raise GraphError(
            f"channels of {layers} cannot leave: the network without them does not compute what it "
            f"computes with them silenced ({error}); name the layers in `pruning.keep_dense`"
        ) from error


def removed_elements(elements: Elements, groups: Sequence[PrunableGroup], bundles: Sequence[IntArray]) -> BoolArray:
    """Returns a mask (elements,) that is True for every element that leaves."""
    removed = np.zeros(elements.count, bool)
    for group, chosen in zip(groups, bundles, strict=True):
        removed[group.elements[chosen].ravel()] = True
    return removed


def _chosen(network: TracedNetwork, groups: Sequence[PrunableGroup], images: Tensor, spec: PruningSpec) -> Selection:
    module, gates = network.module, gate_gradients(network, images)
    dense, costs = counted_multiply_adds(module, images), layer_costs(module)
    candidates = [
        PruningCandidate(importances(gates, group), {axis: places.shape[1] for axis, places in group.positions.items()})
        for group in groups
    ]
    bounds = Bounds(spec.flop_share * dense, spec.round_to, spec.min_kept_share)
    selection = select(candidates, costs, max(dense - multiply_adds(costs, {}), 0), bounds)
    if not selection.is_within:
        movable = {layer for group in groups for layer in group.layers}
        fixed = [cost.layer for cost in costs if cost.layer not in movable]
        raise GraphError(
            f"pruning.flop_share {spec.flop_share:g} cannot be met: {selection.multiply_adds / dense:.3f} is the least "
            f"with round_to {spec.round_to} and min_kept_share {spec.min_kept_share:g}, while {len(fixed)} of "
            f"{len(costs)} layers must keep their width ({', '.join(fixed[:3])}{', ...' if len(fixed) > 3 else ''}); "
            "raise flop_share, lower the others, or leave the pruned variants out of the recipe"
        )
    return selection


def _proven(network: TracedNetwork, elements: Elements, removed: BoolArray, images: Tensor) -> float:
    """The relative L2 between raw outputs of the narrow and the silenced network. Raises GraphError, RuntimeError."""
    wanted = replace(network, module=silenced(network.module, elements, removed)).raw(images)
    found = replace(network, module=narrowed(network.module, elements, removed)).raw(images)
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        raise GraphError("the outputs changed their shape")
    return ensure_function_kept(wanted, found, "taking silenced channels away")


def _culprit(
    network: TracedNetwork,
    elements: Elements,
    groups: Sequence[PrunableGroup],
    bundles: Sequence[IntArray],
    images: Tensor,
) -> PrunableGroup | None:
    """Returns the first group of channels whose removal alone fails the proof."""
    for number, group in enumerate(groups):
        alone = removed_elements(elements, [group], [bundles[number]])
        try:
            _proven(network, elements, alone, images)
        except (GraphError, RuntimeError):
            return group
    return None
