"""Puts users' ONNX graphs into deploy graphs: one torch operator stands for the file until the file replaces it.

`saccade::onnx_network(images, path)` runs the file in eager mode and is one node in a traced program. The converter
writes it as one placeholder, which `splice_onnx_networks` replaces with the file's own nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
import onnx.version_converter
import torch
from onnx import TensorProto
from onnx.defs import OpSchema
from torch import Tensor

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_files import close_sessions, run, served_model, signature_of

_DOMAIN = "saccade"
_OP_TYPE = "OnnxNetwork"
_PATH = "path"


@torch.library.custom_op("saccade::onnx_network", mutates_args=())
def onnx_network(images: Tensor, path: str) -> list[Tensor]:
    """Returns the outputs of the ONNX file at `path` for normalised float32 images in the file's own layout."""
    pixels = np.ascontiguousarray(images.detach().numpy())
    return [torch.from_numpy(np.array(output)) for output in run(Path(path), pixels)]


@onnx_network.register_fake
def _shapes(images: Tensor, path: str) -> list[Tensor]:
    sizes = output_shapes(Path(path), tuple(int(side) for side in images.shape[1:]))
    return [images.new_empty((images.shape[0], *shape), dtype=dtype) for shape, dtype in sizes]


def output_shapes(path: Path, image: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
    """Returns shape without the batch and type of each output, found by running one black image of the given shape.

    Raises SourceError for an output whose first dimension is not the batch.
    """
    return _output_shapes(path, path.stat().st_mtime_ns, image)


@lru_cache(maxsize=4)
def _output_shapes(path: Path, stamp: int, image: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
    outputs = run(path, np.zeros((1, *image), np.float32))
    for tensor, output in zip(signature_of(path).outputs, outputs, strict=True):
        if output.ndim == 0 or len(output) != 1:
            raise SourceError(f"{path.name}: output {tensor} has no row per image: {output.shape} for one image")
    return tuple((output.shape[1:], torch.from_numpy(output).dtype) for output in outputs)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns the table for `torch.onnx.export(custom_translation_table=...)`."""
    return {torch.ops.saccade.onnx_network.default: _placeholder}


def _placeholder(images: Any, path: str) -> Any:
    """Writes one node of our own domain, with the file's path and as many outputs as the file has."""
    import onnxscript  # imported here because it takes seconds, and reading files does not need it

    parameter, count = OpSchema.FormalParameter, len(signature_of(Path(path)).outputs)
    schema = OpSchema(
        _OP_TYPE,
        _DOMAIN,
        1,
        inputs=[parameter("images", "T")],
        outputs=[parameter(f"output_{index}", "T") for index in range(count)],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[OpSchema.Attribute(_PATH, OpSchema.AttrType.STRING, required=True)],
    )
    outputs = onnxscript.values.Op(onnxscript.values.Opset(_DOMAIN, 1), _OP_TYPE, schema)(images, path=path)
    return outputs if isinstance(outputs, Sequence) else [outputs]


def splice_onnx_networks(model: onnx.ModelProto) -> None:
    """Replaces every placeholder with the graph it names; a model without placeholders stays as it is.

    Raises SourceError when a graph cannot be brought to the model's opset.
    """
    nodes = list(model.graph.node)
    if not any(_is_placeholder(node) for node in nodes):
        return
    close_sessions()  # frees memory, because the graph is loaded as well
    opset = _opset(model)
    spliced: list[onnx.NodeProto] = []
    for index, node in enumerate(nodes):
        if not _is_placeholder(node):
            spliced.append(node)
            continue
        (path,) = (Path(attribute.s.decode()) for attribute in node.attribute if attribute.name == _PATH)
        inner = onnx.compose.add_prefix(_at_opset(path, opset), f"onnx_{index}/")
        spliced.extend(_joined(node, inner.graph))
        model.graph.initializer.extend(inner.graph.initializer)
        model.graph.sparse_initializer.extend(inner.graph.sparse_initializer)
        _import_domains(model, inner, path)
    del model.graph.node[:]
    model.graph.node.extend(spliced)
    _forget_placeholders(model)
    _forget_unused_constants(model)


def _is_placeholder(node: onnx.NodeProto) -> bool:
    return bool(node.domain == _DOMAIN and node.op_type == _OP_TYPE)


def _joined(placeholder: onnx.NodeProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Returns the graph's nodes between Identity nodes with the placeholder's tensor names; slimming removes those.

    Half-precision inputs and outputs of the graph get casts instead, because everything around the placeholder is
    float32.
    """
    constants = {tensor.name for tensor in graph.initializer}
    (entry,) = (value for value in graph.input if value.name not in constants)
    exits = zip(graph.output, placeholder.output, strict=False)  # outputs that nobody reads may be missing
    return [
        _link(placeholder.input[0], entry.name, f"{entry.name}/in", entry, TensorProto.FLOAT16),
        *graph.node,
        *(_link(value.name, name, f"{value.name}/out", value, TensorProto.FLOAT) for value, name in exits if name),
    ]


def _link(source: str, target: str, name: str, end: onnx.ValueInfoProto, cast_to: int) -> onnx.NodeProto:
    if end.type.tensor_type.elem_type != TensorProto.FLOAT16:
        return onnx.helper.make_node("Identity", [source], [target], name=name)
    return onnx.helper.make_node("Cast", [source], [target], name=name, to=cast_to)


def _at_opset(path: Path, opset: int) -> onnx.ModelProto:
    """Returns the file's model with its functions inlined, in the opset of the graph that it is put into."""
    model = served_model(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    found = _opset(model)
    if found == opset:
        return model
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # The converter raises RuntimeError, ConvertError and errors of its C++ side.
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{path.name} is opset {found} and cannot be converted to {opset} ({reason}); "
            f"set onnx.opset: {found} in the recipe, or export the file again with opset {opset}"
        ) from error


def _import_domains(model: onnx.ModelProto, inner: onnx.ModelProto, path: Path) -> None:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for entry in inner.opset_import:
        if entry.domain in ("", "ai.onnx"):
            continue
        if versions.setdefault(entry.domain, entry.version) != entry.version:
            raise SourceError(
                f"{path.name} uses {entry.domain!r} version {entry.version}, the deploy graph {versions[entry.domain]}"
            )
        if entry.domain not in {known.domain for known in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(entry.domain, entry.version))


def _forget_placeholders(model: onnx.ModelProto) -> None:
    kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _forget_unused_constants(model: onnx.ModelProto) -> None:
    """Removes unused constants, because ONNX Runtime warns of each whenever the deploy graph is opened."""
    graphs = [model.graph]
    used = {value.name for value in model.graph.output}
    for graph in graphs:  # the list grows while branches and loop bodies are found
        for node in graph.node:
            used.update(node.input)
            graphs.extend(
                each for attribute in node.attribute for each in (attribute.g, *attribute.graphs) if each.node
            )
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if len(kept) < len(model.graph.initializer):
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
