"""Finds blocks that are better left float on this machine: predictions choose what to measure, measurements decide.

The method follows SimQ-NAS (Sridhar et al., arXiv 2312.13301): search with cheap predictors, then measure the best.
Both predictors add up effects of single blocks: the time saved by leaving a block float, and the noise caused by
quantizing its layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.export.graph.onnx_graph import layer_of
from saccade.export.recipe import PolicySpec
from saccade.models.contract.specs import Frozen

MOST_BLOCKS = 14  # all subsets of so many blocks are predicted: 16 thousand sums


@dataclass(frozen=True, slots=True)
class Block:
    """Quantized nodes of one part of the network, which are float or int8 together."""

    name: str  # path of torch layers
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted time and noise of one policy."""

    float_blocks: tuple[int, ...]
    seconds: float
    noise: float


class BlockFigure(Frozen):
    """The effect of leaving one block float while everything else is int8."""

    name: str
    nodes: int
    saved_ms: float  # milliseconds saved; negative: int8 is faster here
    noise_db: float | None  # noise at the outputs from quantizing its layers; null: it has none


class PolicyFigure(Frozen):
    """One measured policy. Ratios compare it with all-int8 in the same loop; above one, the policy is faster."""

    float_blocks: tuple[str, ...]
    predicted_ms: float
    ms: float
    speed_ratio: float
    ratio_low: float
    ratio_high: float
    tuning_metric: float
    gain: float  # gain in tuning metric over all-int8, with its interval over the same resampled images
    gain_low: float
    gain_high: float


class PolicyReport(Frozen):
    """The whole outcome of a search."""

    objective: str
    batch_size: int
    all_int8_ms: float
    all_int8_metric: float
    blocks: tuple[BlockFigure, ...]
    candidates: tuple[PolicyFigure, ...]
    winner: int | None  # index of a candidate; null: nothing beat all-int8
    keep_float: tuple[str, ...]  # the winner's nodes, spelled as the recipe's calibration.keep_float takes them


def blocks_of(nodes: Sequence[str], weighted: Collection[str], most: int = MOST_BLOCKS) -> tuple[Block, ...]:
    """Splits the network along its layer paths, always the block with most nodes, up to `most` blocks.

    Every block has a weighted node: activations and sums belong to the layer in front of them.
    """
    blocks = [Block("", tuple(nodes))]
    while True:
        splits = [(block, _parts(block, weighted)) for block in sorted(blocks, key=lambda block: -len(block.nodes))]
        fitting = ((block, parts) for block, parts in splits if 1 < len(parts) <= most - len(blocks) + 1)
        found = next(fitting, None)
        if found is None:
            return tuple(blocks)
        place = blocks.index(found[0])
        blocks[place : place + 1] = found[1]


def predicted_policies(
    seconds: float, slowest: float, saved: NDArray[np.float64], noise: NDArray[np.float64], count: int
) -> list[Prediction]:
    """Returns policies spread over the Pareto front of time and noise that take at most `slowest` seconds.

    `seconds` is the time of all-int8; `saved` and `noise` (blocks,) hold the effects of each block. Every policy leaves
    some block float and some int8.
    """
    blocks = len(saved)
    if blocks < 2:
        return []  # all float or all int8 is not a policy to choose
    subsets = (np.arange(1, (1 << blocks) - 1)[:, None] >> np.arange(blocks)) & 1  # (policies, blocks); 1 is float
    times = seconds - subsets @ saved
    noises = (1 - subsets) @ noise
    order = np.lexsort((noises, times))
    order = order[times[order] <= slowest]
    lowest = np.minimum.accumulate(np.append(np.inf, noises[order]))[:-1]
    front = order[noises[order] < lowest]
    if not len(front):
        return []
    places = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return [
        Prediction(tuple(np.flatnonzero(subsets[index]).tolist()), float(times[index]), float(noises[index]))
        for index in front[places]
    ]


def winner_of(candidates: Sequence[PolicyFigure], spec: PolicySpec) -> int | None:
    """Returns the candidate that gains in the objective beyond chance and stays in budget; None without one."""
    if spec.objective == "latency":
        good = [index for index, each in enumerate(candidates) if each.ratio_low > 1.0 and each.gain >= 0.0]
        return max(good, key=lambda index: candidates[index].speed_ratio, default=None)
    good = [
        index
        for index, each in enumerate(candidates)
        if each.gain_low > 0.0 and each.ratio_low * slowest_share(spec) >= 1.0
    ]
    return max(good, key=lambda index: candidates[index].tuning_metric, default=None)


def slowest_share(spec: PolicySpec) -> float:
    """Returns how long a policy may take, as a share of all-int8's time."""
    return 1.0 + spec.max_slowdown if spec.objective == "accuracy" else 1.0


def taken_out(blocks: Sequence[Block], chosen: Sequence[int]) -> dict[str, str]:
    """Returns the nodes of the chosen blocks with the reason why they stay float."""
    return {
        node: f"the measured policy leaves {blocks[index].name} float"
        for index in chosen
        for node in blocks[index].nodes
    }


def block_noise(blocks: Sequence[Block], noise: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([sum(noise.get(node, 0.0) for node in block.nodes) for block in blocks])


def _parts(block: Block, weighted: Collection[str]) -> list[Block]:
    """Splits one level deeper along the layer path, in order; a path that does not fork is followed until it does."""
    depth = len(block.name.split(".")) if block.name else 0
    paths = [layer_of(node).split(".") for node in block.nodes]
    while True:
        parts: dict[str, list[str]] = {}
        for node, path in zip(block.nodes, paths, strict=True):
            parts.setdefault(".".join(path[: depth + 1]), []).append(node)
        joined = _with_weights(parts, weighted)
        if len(joined) > 1 or depth >= max(len(path) for path in paths):
            return joined
        depth += 1


def _with_weights(parts: Mapping[str, Sequence[str]], weighted: Collection[str]) -> list[Block]:
    """Joins parts without a weighted node to the one before them, or to the first that has one."""
    joined: list[Block] = []
    waiting: tuple[str, ...] = ()
    for name, nodes in parts.items():
        if any(node in weighted for node in nodes):
            joined.append(Block(name, (*waiting, *nodes)))
            waiting = ()
        elif joined:
            joined[-1] = Block(joined[-1].name, (*joined[-1].nodes, *nodes))
        else:
            waiting = (*waiting, *nodes)
    return joined
