"""Reads precision and sparsity by layer from a variant's published file, or from the runtime that decides of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import onnx
import orjson

from saccade.export.compression.sparsity.mask_check import claimed_layers
from saccade.export.errors import GraphError
from saccade.export.graph.large_files import load_graph
from saccade.export.graph.onnx_graph import ancestors
from saccade.export.plans.targets import installed_tensorrt
from saccade.export.precision.effective_precision import (
    LayerPrecision,
    layer_precisions,
    layers_of_network,
    network_precisions,
    precision_mismatches,
    share_in,
)
from saccade.export.precision.files import LAYERS_FILE
from saccade.export.precision.mixed_precision import DTYPES_FILE
from saccade.export.qualification.qualify_report import LayerFigure, MaskFigure, PrecisionFigure
from saccade.export.variants import Precision, VariantTraits
from saccade.service.repository.onnx_graph import OnnxGraph, read_graph
from saccade.service.repository.two_four import mask_violations, zero_shares


@dataclass(frozen=True, slots=True)
class FileStructure:
    """Structure of one file, layer by layer."""

    layers: tuple[LayerPrecision, ...]  # layers of the network, without the products of the answer head
    figures: tuple[LayerFigure, ...]
    precision: PrecisionFigure
    mask: MaskFigure | None


def file_structure(
    file: Path,
    traits: VariantTraits,
    made: Path,
    compressed: Path | None,
    computed: Mapping[str, str] | None = None,
) -> FileStructure:
    """Reads a file; `made` holds the precision step's files, `compressed` those of compression.

    computed: precisions by node, where the runtime decides them; a layer that it does not name counts as in the file.
    """
    is_sparse = traits.form == "sparse24"
    model = load_graph(file)
    graph = read_graph(file) if is_sparse else None
    try:
        layers, problem = layers_of_network(model, layer_precisions(model)), ""
    except GraphError as error:
        layers, problem = (), str(error)
    if computed is not None:
        layers = tuple(replace(layer, precision=_computed_precision(computed, model, layer)) for layer in layers)
    zeros = {} if graph is None else zero_shares(graph)
    figures = tuple(
        LayerFigure(
            node=layer.node,
            op=layer.op,
            layer=layer.layer,
            precision=layer.precision,
            flops=layer.flops,
            activations=layer.activations,
            weights=layer.weights,
            weight_bytes=layer.weight_bytes,
            zero_share=zeros.get(layer.node),
        )
        for layer in layers
    )
    stated = stated_layers(made) if computed is None else None  # the step's reasons are about the file
    precision = _precision(file, model, traits, layers, problem, stated)
    return FileStructure(layers, figures, precision, None if graph is None else _mask(graph, compressed))


def _computed_precision(computed: Mapping[str, str], model: onnx.ModelProto, layer: LayerPrecision) -> Precision:
    """What the runtime says of a layer, which it names by its node, or by an output of the graph that it makes."""
    outputs = next((list(node.output) for node in model.graph.node if node.name == layer.node), [])
    found = next((computed[name] for name in (layer.node, *outputs) if name in computed), None)
    return next((each for each in get_args(Precision) if each == found), layer.precision)


@dataclass(frozen=True, slots=True)
class StatedLayers:
    """What the precision step wrote about nodes and layers."""

    listed: frozenset[str]
    explained: frozenset[str]  # layers that it left out, with a reason


def stated_layers(made: Path) -> StatedLayers | None:
    """Reads what the step wrote; None for fp32, which leaves no layer out."""
    listed: set[str] = set()
    explained: set[str] = set()
    is_written = False
    for file, reason_key in ((LAYERS_FILE, "reason"), (DTYPES_FILE, "kept_fp32")):
        if (made / file).exists():
            is_written = True
            document = orjson.loads((made / file).read_bytes())
            for row in document["layers"] if isinstance(document, dict) else document:
                name = row.get("node") or row.get("layer")
                listed.add(name)
                if row.get(reason_key):
                    explained.add(name)
    return StatedLayers(frozenset(listed), frozenset(explained)) if is_written else None


def silent_layers(
    model: onnx.ModelProto, others: Sequence[LayerPrecision], stated: StatedLayers | None
) -> list[LayerPrecision] | None:
    """Returns layers in another precision without a reason; layers after the last listed one only decode."""
    if stated is None:
        return None
    ends = [name for node in model.graph.node if node.name in stated.listed for name in node.output]
    inside = {node.name for node in ancestors(model, ends)}
    return [layer for layer in others if layer.node in inside and layer.node not in stated.explained]


def _precision(
    file: Path,
    model: onnx.ModelProto,
    traits: VariantTraits,
    layers: Sequence[LayerPrecision],
    problem: str,
    stated: StatedLayers | None,
) -> PrecisionFigure:
    asked = traits.precision
    if not layers:
        return PrecisionFigure(asked=asked, share=None, problem=problem or "the network multiplies nothing")
    total = sum(layer.flops for layer in layers)
    others = sorted((layer for layer in layers if layer.precision != asked), key=lambda layer: -layer.flops)
    silent = silent_layers(model, others, stated)
    parsed = _parsed(file, layers) if traits.needs_gpu else _Parsed()
    return PrecisionFigure(
        asked=asked,
        share=share_in(layers, asked),
        otherwise=tuple(_named(layer, total) for layer in others),
        silent=None if silent is None else tuple(_named(layer, total) for layer in silent),
        parsed_by=parsed.by,
        mismatches=parsed.mismatches,
        refusal=parsed.refusal,
    )


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What TensorRT said of a file; empty when TensorRT is not installed or the file is not for it."""

    by: str = ""
    mismatches: tuple[str, ...] = ()
    refusal: str = ""


def _parsed(file: Path, layers: Sequence[LayerPrecision]) -> _Parsed:
    name = installed_tensorrt()
    try:
        network = network_precisions(file)
    except GraphError as error:
        return _Parsed(by=name, refusal=str(error))
    if network is None:
        return _Parsed()
    found = precision_mismatches(layers, network)
    return _Parsed(name, tuple(f"{each.node} ({each.in_file} in the file, {each.in_network})" for each in found))


def _mask(graph: OnnxGraph, compressed: Path | None) -> MaskFigure:
    claimed = () if compressed is None else claimed_layers(compressed)
    violations = mask_violations(graph, claimed)
    return MaskFigure(
        claimed=claimed, violations=tuple(f"{each.node or each.layer}: {each.reason}" for each in violations)
    )


def _named(layer: LayerPrecision, total: int) -> str:
    return f"{layer.layer or layer.node} ({layer.precision}, {layer.flops / max(total, 1):.1%})"
