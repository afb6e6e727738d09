"""Keeps large weights beside their graph. Promises: one file, named by the graph, never held in memory by a step.

ONNX files end at 2 GB, and a graph in memory is copied by whoever reads it. Weights of large networks therefore lie in
one file beside `model.onnx` from the moment they leave torch; steps change the graph and hand the file on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data

from saccade.export.errors import GraphError

EXTERNAL_ABOVE_BYTES = 256 << 20  # smaller graphs are simpler to handle in one file
_INLINE_BELOW_BYTES = 1 << 20  # shapes, scales, biases: what rewrites look at stays in the graph
_MAX_WHOLE_BYTES = 1_900_000_000  # a whole graph is one message in memory, which protobuf ends at 2 GiB
WEIGHTS_SUFFIX = ".data"


def saved_program(program: Any, file: Path) -> None:
    """Writes a torch.onnx.ONNXProgram, its weights beside the file when they are large. Side effect: empties it."""
    import onnx_ir  # comes with the converter; what only reads graphs does without

    values = list(program.model.graph.initializers.values())
    size = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    if size > EXTERNAL_ABOVE_BYTES:
        onnx_ir.save(
            program.model, file, external_data=file.name + WEIGHTS_SUFFIX, size_threshold_bytes=_INLINE_BELOW_BYTES
        )
    else:
        program.save(file)
    # The converter's caches keep its graphs alive, and with them a copy of all weights.
    for value in values:
        value.const_value = None


def save_graph(model: onnx.ModelProto, file: Path) -> None:
    """Writes a graph whose weights are in it or already external; large ones in it go beside the file."""
    if _inline_bytes(model) > EXTERNAL_ABOVE_BYTES:
        onnx.save(
            model,
            file,
            save_as_external_data=True,
            location=file.name + WEIGHTS_SUFFIX,
            size_threshold=_INLINE_BELOW_BYTES,
        )
    else:
        onnx.save(model, file)


def load_graph(file: Path) -> onnx.ModelProto:
    """The graph; weights that lie beside the file stay there."""
    return onnx.load(file, load_external_data=False)


def whole_graph(file: Path, takers: str) -> onnx.ModelProto:
    """The graph with its weights in it. Raises GraphError for one that is too large for `takers`, which need it so."""
    size = file.stat().st_size + sum((file.parent / name).stat().st_size for name in weight_files(file))
    if size > _MAX_WHOLE_BYTES:
        raise GraphError(
            f"the float network has {size / 1e9:.1f} GB, {takers} takes up to {_MAX_WHOLE_BYTES / 1e9:.1f} GB: "
            f"leave {takers} out of the recipe's variants"
        )
    return onnx.load(file)


def weight_files(file: Path) -> tuple[str, ...]:
    """Names of the files beside `file` that hold its weights; empty for a graph that has them inside."""
    return external_locations(load_graph(file))


def external_locations(model: onnx.ModelProto) -> tuple[str, ...]:
    return tuple(sorted({_location(tensor) for tensor in model.graph.initializer if uses_external_data(tensor)}))


def hand_on_weights(model: onnx.ModelProto, source: Path, target: Path, name: str | None = None) -> None:
    """Copies the weight files of `model` from one directory into another; `name` renames them, in the graph as well."""
    locations = external_locations(model)
    for index, location in enumerate(locations):
        new = location if name is None else name if index == 0 else f"{name}-{index}"
        shutil.copyfile(source / location, target / new)  # onnx refuses links, hard ones included
        for tensor in model.graph.initializer:
            if uses_external_data(tensor) and _location(tensor) == location:
                next(entry for entry in tensor.external_data if entry.key == "location").value = new


def plain_session(file: Path) -> onnxruntime.InferenceSession:
    """A session to compare answers with; one of large weights neither folds nor repacks copies of them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if weight_files(file):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])


@contextmanager
def weights_as_inputs(model: onnx.ModelProto) -> Iterator[None]:
    """External weights are inputs of the graph meanwhile, so that optimisers neither read nor copy them."""
    hidden = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    inputs = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in hidden]
    for tensor in hidden:
        model.graph.initializer.remove(tensor)
    model.graph.input.extend(inputs)
    yield
    names = {tensor.name for tensor in hidden}
    kept = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(tensor for tensor in hidden if tensor.name in used)


def _inline_bytes(model: onnx.ModelProto) -> int:
    return sum(tensor.ByteSize() for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL)


def _location(tensor: onnx.TensorProto) -> str:
    return next(str(entry.value) for entry in tensor.external_data if entry.key == "location")
