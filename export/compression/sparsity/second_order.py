"""Prunes to 2:4 with second-order weight updates, in one pass in which a layer reads what pruned layers before it give.

The method is SparseGPT (Frantar & Alistarh, arXiv 2301.00774): an optimal-brain-surgeon update column by column. A
convolution's columns are ordered (kernel position, input channel), so that every four neighbours are four input
channels of one kernel position, the groups that sparse tensor cores read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from saccade.export.compression.sparsity.channel_elements import operator_name
from saccade.export.compression.sparsity.eligibility import WeightedLayer
from saccade.export.compression.sparsity.masks import GROUP, KEPT

_POSITIONS = 8192  # evenly drawn columns of the unfolded input that a layer's Hessian is summed over
_DAMPING = 0.01  # share of the mean diagonal that is added to the diagonal
_BLOCK = 128  # columns whose updates are gathered before they reach the rest of the row


@dataclass(frozen=True, slots=True, eq=False)
class PrunedLayer:
    weight: Tensor  # shaped as the layer's weight, with zeros
    mask: Tensor  # bool


def prune_in_order(
    module: fx.GraphModule, layers: Sequence[WeightedLayer], images: Tensor, told: Callable[[str], None]
) -> dict[str, PrunedLayer]:
    """Prunes the given layers in place while `images` (n, height, width, 3) uint8 pass through the network.

    Side effect: `module` gets the pruned weights.
    """
    pass_through = _PruningPass(module, {layer.node: layer for layer in layers}, told)
    with torch.no_grad():
        pass_through.run(images)
    return pass_through.pruned


def pruned_by_second_order(weight: Tensor, hessian: Tensor) -> PrunedLayer:
    """Prunes (rows, columns) to 2:4 along the columns; hessian (columns, columns) is the sum of x x' over inputs."""
    work = weight.detach().double().clone()
    upper = _inverse_factor(hessian.double())
    diagonal = upper.diagonal()
    mask = torch.ones_like(work, dtype=torch.bool)
    for start in range(0, work.shape[1], _BLOCK):
        stop = min(start + _BLOCK, work.shape[1])
        block, factor = work[:, start:stop], upper[start:stop, start:stop]
        errors = torch.zeros_like(block)
        for column in range(stop - start):
            if column % GROUP == 0:
                quad = slice(column, column + GROUP)
                loss = block[:, quad].square() / diagonal[start:stop][quad].square()
                dropped = loss.argsort(dim=1, stable=True)[:, : GROUP - KEPT]
                mask[:, start:stop][:, quad].scatter_(1, dropped, False)
            kept = mask[:, start + column]
            error = torch.where(kept, 0.0, block[:, column]) / factor[column, column]
            block[:, column] = torch.where(kept, block[:, column], 0.0)
            block[:, column + 1 :] -= error[:, None] * factor[column, column + 1 :]
            errors[:, column] = error
        work[:, stop:] -= errors @ upper[start:stop, stop:]
    return PrunedLayer((work * mask).to(weight.dtype), mask)


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Returns the upper Cholesky factor of the inverse; inputs that are always zero get 1 on the diagonal."""
    hessian = hessian.clone()
    silent = hessian.diagonal() == 0
    hessian.diagonal()[silent] = 1.0
    hessian.diagonal().add_(_DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def columns_of(weight: Tensor) -> Tensor:
    """Reshapes a weight (filters, channels, kernel...) to (filters, positions x channels)."""
    return weight.reshape(weight.shape[0], weight.shape[1], -1).transpose(1, 2).reshape(weight.shape[0], -1)


def weight_of(columns: Tensor, shape: Sequence[int]) -> Tensor:
    """Reverses `columns_of`."""
    return columns.reshape(shape[0], -1, shape[1]).transpose(1, 2).reshape(tuple(shape)).contiguous()


def hessian_of(node: fx.Node, source: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the sum of x x' (columns, columns) over the positions where the layer reads its input."""
    if operator_name(node) == "linear":
        rows = source.reshape(-1, source.shape[-1])
        rows = rows[:: max(1, len(rows) // _POSITIONS)]
        return rows.T @ rows
    stride, padding, dilation = (node.args[place] if len(node.args) > place else None for place in (3, 4, 5))
    kernel = tuple(shape[2:])
    per_image = max(1, _POSITIONS // len(source))
    total = torch.zeros(shape[1] * kernel[0] * kernel[1], shape[1] * kernel[0] * kernel[1])
    for image in source:
        unfolded = functional.unfold(
            image[None], kernel, _pair(dilation, 1), _padding(padding, kernel, dilation), _pair(stride, 1)
        )[0]  # (channels x positions of the kernel, places)
        unfolded = unfolded[:, :: max(1, unfolded.shape[1] // per_image)]
        columns = unfolded.reshape(shape[1], -1, unfolded.shape[1]).transpose(0, 1).reshape(len(unfolded), -1)
        total.addmm_(columns, columns.T)
    return total


def _pair(value: Any, default: int) -> tuple[int, int]:
    if value is None:
        return default, default
    numbers = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return numbers[0], numbers[-1]


def _padding(value: Any, kernel: Sequence[int], dilation: Any) -> tuple[int, int]:
    """Returns the padding as numbers, also for `valid` and odd `same` padding."""
    if value == "same":
        spread = _pair(dilation, 1)
        return spread[0] * (kernel[0] - 1) // 2, spread[1] * (kernel[1] - 1) // 2
    return _pair(None if value == "valid" else value, 0)


class _PruningPass(fx.Interpreter):
    """Runs the network node by node and prunes each layer just before computing it."""

    def __init__(
        self, module: fx.GraphModule, layers: Mapping[str, WeightedLayer], told: Callable[[str], None]
    ) -> None:
        super().__init__(module)
        self._layers = layers
        self._told = told
        self.pruned: dict[str, PrunedLayer] = {}

    def run_node(self, n: fx.Node) -> Any:
        layer = self._layers.get(n.name)
        if layer is not None:
            self._told(layer.layer)
            source, weight = (self.env[argument] for argument in n.args[:2] if isinstance(argument, fx.Node))
            found = pruned_by_second_order(columns_of(weight), hessian_of(n, source, weight.shape))
            made = PrunedLayer(weight_of(found.weight, weight.shape), weight_of(found.mask, weight.shape))
            weight.data.copy_(made.weight)
            self.pruned[layer.weight] = made
        return super().run_node(n)
