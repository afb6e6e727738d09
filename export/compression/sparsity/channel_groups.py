"""Finds which channels of a traced network may be exchanged; the result is conservative, and callers prove an exchange.

Channels that an operator ties to each other (a residual sum, a concatenation, a layer's weights and its reader) form
one bundle. Two bundles that touch the same axes equally often are interchangeable: exchanging them everywhere leaves
the network's function unchanged. The method follows the dependency groups of DepGraph (Fang et al., arXiv 2301.12900),
refined to single channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from saccade.export.compression.sparsity.channel_elements import Elements
from saccade.export.compression.sparsity.channel_rules import apply_rules

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """A group of interchangeable bundles of channels.

    `positions[(parameter, axis)]` is (bundles, k): the indices of bundle i on that axis. k is 1 unless a channel
    occupies several indices, as after flattening a feature map.
    """

    size: int
    positions: Mapping[tuple[str, int], IntArray]


def channel_groups(module: fx.GraphModule) -> list[ChannelGroup]:
    """Returns every group of at least two bundles that reaches a parameter, in graph order."""
    elements = apply_rules(module)
    parameters = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    groups = [group_of(elements, rows, parameters) for rows in interchangeable_bundles(elements)]
    return [group for group in groups if group.positions]


def interchangeable_bundles(elements: Elements) -> list[IntArray]:
    """Yields arrays (bundles, elements) of at least two bundles that touch the same axes and hold no pinned element."""
    bundles = _bundles(elements)
    pinned = np.zeros(int(bundles.max(initial=-1)) + 1, bool)
    if elements.pins:
        pinned[bundles[np.concatenate(elements.pins)]] = True
    axis_of, _ = _axes(elements)
    order = np.argsort(bundles, kind="stable")
    starts = np.flatnonzero(np.diff(bundles[order], prepend=-1))
    by_signature: dict[bytes, list[IntArray]] = defaultdict(list)
    for members in np.split(order, starts[1:]):
        if not pinned[bundles[members[0]]]:
            by_signature[axis_of[members].tobytes()].append(members)
    return [np.stack(rows) for rows in by_signature.values() if len(rows) > 1]


def group_of(elements: Elements, rows: IntArray, parameters: set[str]) -> ChannelGroup:
    """Returns the group of `rows` (bundles, elements), in which equal columns lie on equal axes."""
    axis_of, offset_of = _axes(elements)
    positions: dict[tuple[str, int], IntArray] = {}
    columns = axis_of[rows[0]]
    for axis_number in np.unique(columns):
        name, axis, _ = elements.owners[axis_number]
        if name in parameters:
            positions[name, axis] = offset_of[rows[:, columns == axis_number]]
    return ChannelGroup(len(rows), positions)


def permuted(state: Mapping[str, Tensor], group: ChannelGroup, order: IntArray) -> dict[str, Tensor]:
    """The group's parameters with bundle `order[slot]` in each slot; `order` is a permutation of range(size)."""
    changed: dict[str, Tensor] = {}
    for (name, axis), positions in group.positions.items():
        tensor = changed.get(name, state[name])
        index = torch.arange(tensor.shape[axis])
        index[torch.from_numpy(positions.ravel())] = torch.from_numpy(positions[order].ravel())
        changed[name] = tensor.index_select(axis, index)
    return changed


def _bundles(elements: Elements) -> IntArray:
    """Returns the bundle number of every element."""
    if elements.joins:
        first = np.concatenate([pair[0] for pair in elements.joins])
        second = np.concatenate([pair[1] for pair in elements.joins])
    else:
        first = second = np.empty(0, np.int64)
    shape = (elements.count, elements.count)
    labels: IntArray = connected_components(coo_matrix((np.ones(len(first), bool), (first, second)), shape), False)[1]
    return labels.astype(np.int64)


def _axes(elements: Elements) -> tuple[IntArray, IntArray]:
    """Returns for every element the number of its axis and its index on that axis."""
    starts = np.array([start for _, _, start in elements.owners], np.int64)
    lengths = np.diff(np.append(starts, elements.count))
    axis_of = np.repeat(np.arange(len(starts)), lengths)
    return axis_of, np.arange(elements.count) - np.repeat(starts, lengths)
