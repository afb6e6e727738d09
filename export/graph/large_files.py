"""Keeps large weights in one file beside their graph, named by the graph, so that no step holds them in memory.

ONNX files end at 2 GB, and libraries copy a graph that they read. Weights of large networks therefore lie in one file
beside `model.onnx` as soon as they leave torch; steps change the graph and copy the file.
"""

from __future__ import annotations

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
from saccade.export.graph.quantized_graph import quantized_weights
from saccade.export.graph.sessions import cpu_session, plain_options, quiet_options

EXTERNAL_ABOVE_BYTES = 256 << 20  # bytes of weights; smaller graphs are simpler to handle in one file
_INLINE_BELOW_BYTES = 1 << 20  # shapes, scales and biases, which rewrites read, stay in the graph
_MAX_WHOLE_BYTES = 1_900_000_000  # a whole graph is one message in memory, which protobuf limits to 2 GiB
WEIGHTS_SUFFIX = ".data"


def saved_program(program: Any, file: Path) -> None:
    """Writes a torch.onnx.ONNXProgram and empties it; large weights go beside the file."""
    import onnx_ir  # comes with the converter; code that only reads graphs works without it

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
    """Writes a graph whose weights are inside or already external; large ones inside it go beside the file."""
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
    """Reads the graph; weights that lie beside the file stay there."""
    return onnx.load(file, load_external_data=False)


def whole_graph(file: Path, takers: str) -> onnx.ModelProto:
    """Reads the graph with its weights. Raises GraphError when it is too large for `takers`, which need it whole."""
    size = file.stat().st_size + sum((file.parent / name).stat().st_size for name in weight_files(file))
    if size > _MAX_WHOLE_BYTES:
        raise GraphError(
            f"the float network has {size / 1e9:.1f} GB, {takers} takes up to {_MAX_WHOLE_BYTES / 1e9:.1f} GB: "
            f"leave {takers} out of the recipe's variants"
        )
    return onnx.load(file)


def weight_files(file: Path) -> tuple[str, ...]:
    """Names the files beside `file` that hold its weights; empty for a graph that has them inside."""
    return external_locations(load_graph(file))


def external_locations(model: onnx.ModelProto) -> tuple[str, ...]:
    return tuple(sorted({_location(tensor) for tensor in model.graph.initializer if uses_external_data(tensor)}))


def hand_on_weights(model: onnx.ModelProto, source: Path, target: Path, name: str | None = None) -> None:
    """Copies the weight files of `model` into another directory; `name` renames them, in the graph as well."""
    locations = external_locations(model)
    for index, location in enumerate(locations):
        new = location if name is None else name if index == 0 else f"{name}-{index}"
        shutil.copyfile(source / location, target / new)  # onnx refuses links, also hard links
        for tensor in model.graph.initializer:
            if uses_external_data(tensor) and _location(tensor) == location:
                next(entry for entry in tensor.external_data if entry.key == "location").value = new


def plain_session(file: Path) -> onnxruntime.InferenceSession:
    """Opens a session to compare answers with; one of large weights neither folds nor repacks copies of them.

    A graph whose weights are quantized already runs without int8 kernels, like the file that it was made from.
    """
    options = plain_options() if quantized_weights(load_graph(file)) is not None else quiet_options()
    if weight_files(file):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
    return cpu_session(file, options)


@contextmanager
def weights_as_inputs(model: onnx.ModelProto) -> Iterator[None]:
    """Makes external weights inputs of the graph within the context, so that optimisers neither read nor copy them."""
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
