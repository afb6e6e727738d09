"""Counts the multiply-adds that one image costs in a traced network, in total and by layer."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from saccade.export.compression.pruning.selection import LayerCost
from saccade.export.compression.sparsity.channel_elements import operator_name
from saccade.export.compression.traced_network import used_weights


def counted_multiply_adds(module: fx.GraphModule, images: Tensor) -> int:
    """Returns the multiply-adds of one image, counted by torch."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(images[:1])
    return int(counter.get_total_flops()) // 2


def layer_costs(module: fx.GraphModule) -> list[LayerCost]:
    """Returns the costs of every convolution and linear layer whose weight is stored."""
    state = used_weights(module)
    costs: list[LayerCost] = []
    for node in module.graph.nodes:
        if node.op == "call_function" and operator_name(node) in ("conv2d", "linear"):
            weight, sizes = str(node.args[1].target), node.meta["val"].shape
            if weight in state:
                places = sizes[2:] if operator_name(node) == "conv2d" else sizes[1:-1]
                layer = weight.rpartition(".")[0]
                costs.append(LayerCost(layer, weight, tuple(state[weight].shape), prod(int(size) for size in places)))
    return costs
