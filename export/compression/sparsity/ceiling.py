"""Tells how much 2:4 can gain at most: sparse kernels skip half of the multiply-adds of the layers that they take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from saccade.export.compression.sparsity.channel_elements import operator_name
from saccade.export.compression.sparsity.eligibility import WEIGHTED


@dataclass(frozen=True, slots=True)
class SparseWork:
    """What part of a network's work lies in layers with 2:4 weights."""

    share: float  # of the multiply-adds of one image, in 0..1

    @property
    def ceiling(self) -> float:
        """Returns the best possible ratio of images per second, 2:4 against dense (Amdahl's law)."""
        return 1.0 / (1.0 - self.share / 2.0)

    def refusal(self, least_gain: float) -> str:
        """Returns why the form is not worth making under the gate's `min_sparse_gain`; empty when it may be."""
        if self.ceiling >= least_gain:
            return ""
        return (
            f"2:4 cannot reach gate.min_sparse_gain {least_gain:g}: the layers that may become 2:4 do {self.share:.1%} "
            f"of the multiply-adds, so the best possible gain is {self.ceiling:.2f}x. Leave the sparse variants out of "
            "the recipe, or let smaller layers take part with sparsity.min_input_channels"
        )


def sparse_work(module: fx.GraphModule, layers: Collection[str], image: Tensor) -> SparseWork:
    """Counts multiply-adds by running one image (1, height, width, 3); `layers` are torch paths, as in ONNX names."""
    counter = _WorkCounter(module)
    with torch.inference_mode():
        counter.run(image)
    total = sum(counter.work.values())
    inside = sum(work for layer, work in counter.work.items() if layer in layers)
    return SparseWork(inside / total if total else 0.0)


class _WorkCounter(fx.Interpreter):
    """Sums the work of each convolution and linear layer, and that of all other operators under an empty name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.work: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        layer = _layer_of(n)
        self.work[layer] = self.work.get(layer, 0) + counter.get_total_flops()
        return result


def _layer_of(node: fx.Node) -> str:
    if node.op != "call_function" or operator_name(node) not in WEIGHTED:
        return ""
    weight = node.args[1]
    return str(weight.target).rpartition(".")[0] if isinstance(weight, fx.Node) and weight.op == "get_attr" else ""
