"""Emulates narrow float files on a CPU: the shipped weights are used, and every narrow node rounds its result.

ONNX Runtime's CPU provider has no bf16 convolution, and runs most fp16 operators in fp32 without rounding in between,
so its figures would flatter fp16. Here the file becomes a float graph that rounds after every node that is narrow in
the file. Products are summed in fp32, as tensor cores do; a device that fuses nodes rounds less often than this.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from saccade.export.errors import GraphError
from saccade.export.graph.large_files import save_graph
from saccade.export.precision.effective_precision import element_types
from saccade.export.precision.float_formats import NARROW_TYPES
from saccade.service.repository.layer_precision import MOVING_OPS

# These operators return numbers that they read, so there is nothing to round.
_CHOOSING_OPS = MOVING_OPS | {"Abs", "Clip", "GlobalMaxPool", "Max", "Min", "Neg", "Pad", "Relu", "Where"}


def needs_emulation(model: onnx.ModelProto) -> bool:
    """Returns whether any tensor of the graph is fp16 or bf16."""
    return any(kind in NARROW_TYPES for kind in element_types(model).values())


def measured_through(model: onnx.ModelProto) -> str:
    """Returns `file` or `emulation`: what a CPU runs when it measures this file."""
    return "emulation" if needs_emulation(model) else "file"


@contextlib.contextmanager
def runnable_file(file: Path) -> Iterator[Path]:
    """Yields the file itself or, within the context, its emulation. Raises GraphError when it cannot be emulated."""
    model = onnx.load(file, load_external_data=False)
    if not needs_emulation(model):
        yield file
        return
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / file.name
        save_graph(emulated(onnx.load(file)), made)
        yield made


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a float copy that rounds where the original computes in fp16 or bf16.

    Raises GraphError when the graph's inputs, answers or loop bodies are narrow.
    """
    types = element_types(model)
    _ensure_narrow_inside_only(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    del copy.graph.node[:]
    for node in model.graph.node:
        copy.graph.node.extend(_emulated_node(node, types))
    for tensor in copy.graph.initializer:
        if tensor.data_type in NARROW_TYPES:
            tensor.CopyFrom(_widened(tensor))
    return copy


def _emulated_node(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for each in copy.attribute:
        if each.HasField("t") and each.t.data_type in NARROW_TYPES:
            each.t.CopyFrom(_widened(each.t))
    narrow = {name: types[name] for name in node.output if types.get(name) in NARROW_TYPES}
    if not narrow or node.op_type in _CHOOSING_OPS | {"Constant", "ConstantOfShape"}:
        return [copy]
    if node.op_type == "Cast":
        _attribute(copy, "to").i = TensorProto.FLOAT
    made = [copy]
    for index, name in enumerate(node.output):
        if name in narrow:
            copy.output[index] = f"{name}/exact"
            made.extend(_rounding(name, narrow[name], node.name))
    return made


def _rounding(name: str, element_type: int, node_name: str) -> list[onnx.NodeProto]:
    """Returns the nodes that round `<name>/exact` through the narrow type to `<name>`."""
    label = f"{node_name}/{name}"
    return [
        helper.make_node("Cast", [f"{name}/exact"], [f"{name}/narrow"], name=f"{label}/round", to=element_type),
        helper.make_node("Cast", [f"{name}/narrow"], [name], name=f"{label}/widen", to=TensorProto.FLOAT),
    ]


def _ensure_narrow_inside_only(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in NARROW_TYPES:
            raise GraphError(f"{value.name!r} is {_type_name(value)}: inputs and answers of a variant stay as in fp32")
    for node in model.graph.node:
        for each in node.attribute:
            if each.HasField("g") and _has_narrow(each.g):
                raise GraphError(f"the body of {node.op_type} {node.name!r} computes in fp16 or bf16; keep it in fp32")


def _has_narrow(graph: onnx.GraphProto) -> bool:
    casts = [_attribute(node, "to").i for node in graph.node if node.op_type == "Cast"]
    constants = [tensor.data_type for tensor in graph.initializer]
    constants += [each.t.data_type for node in graph.node for each in node.attribute if each.HasField("t")]
    bodies = [each.g for node in graph.node for each in node.attribute if each.HasField("g")]
    return any(kind in NARROW_TYPES for kind in (*casts, *constants)) or any(_has_narrow(body) for body in bodies)


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values: Any = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(values.astype("float32"), tensor.name)


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    found: onnx.AttributeProto = next(each for each in node.attribute if each.name == name)
    return found


def _type_name(value: onnx.ValueInfoProto) -> str:
    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()
