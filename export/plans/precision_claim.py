"""Compares the precision in which a parsed network multiplies with the one in the variant's name.

A plan cannot be opened without a driver, but it is strongly typed: the parsed network tells what it computes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx

from saccade.export.errors import GraphError
from saccade.export.plans.network import NetworkLayer
from saccade.export.precision.effective_precision import LayerPrecision, layer_precisions, layers_of_network, share_in
from saccade.export.variants import Precision

_PRODUCTS = ("convolution", "deconvolution", "matrix_multiply")
_PRECISIONS: dict[str, Precision] = {"float": "fp32", "half": "fp16", "bf16": "bf16", "int8": "int8", "fp8": "fp8"}


@dataclass(frozen=True, slots=True)
class PrecisionClaim:
    """Shares of the network's multiply-adds in the precision that the variant names."""

    asked: Precision
    in_file: float
    in_network: float
    lost: tuple[str, ...]  # layers that are in `asked` in the file and in another type in the network, largest first

    @property
    def is_kept(self) -> bool:
        return not self.lost


def precision_claim(file: Path, asked: Precision, network: Sequence[NetworkLayer]) -> PrecisionClaim:
    """Computes the claim of a file. Raises GraphError when the graph does not say how large a layer is."""
    model = onnx.load(file, load_external_data=False)
    layers = layer_precisions(model)
    with suppress(GraphError):  # a graph that does not say where its network ends counts as a whole
        layers = layers_of_network(model, layers)
    found = _multiplied_in(network)
    total = sum(layer.flops for layer in layers)
    kept = sum(layer.flops for layer in layers if found.get(layer.node) == asked)
    lost = [layer for layer in layers if layer.precision == asked and found.get(layer.node) != asked]
    return PrecisionClaim(
        asked=asked,
        in_file=share_in(layers, asked),
        in_network=kept / total if total else 0.0,
        lost=tuple(_named(layer, found) for layer in sorted(lost, key=lambda layer: -layer.flops)),
    )


def _multiplied_in(network: Sequence[NetworkLayer]) -> dict[str, str]:
    """Returns the precision of every product by node; `mixed` where its two sides differ."""
    found: dict[str, str] = {}
    for layer in network:
        if layer.kind in _PRODUCTS:
            kinds = set(layer.reads[:2])  # a third input is the bias
            precision = _PRECISIONS.get(kinds.pop(), "other") if len(kinds) == 1 else "mixed"
            found[layer.node] = precision if found.get(layer.node, precision) == precision else "mixed"
    return found


def _named(layer: LayerPrecision, found: dict[str, str]) -> str:
    return f"{layer.layer or layer.node} ({found.get(layer.node, 'missing')})"
