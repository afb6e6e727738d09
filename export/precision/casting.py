"""Moves chosen nodes of a graph into a narrow float type; casts appear only at borders, one per tensor.

The available converters cast the scales of Resize, cast twice, or change the graph's inputs, so this one is written
here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.graph_rewrites import drop_dead_nodes
from saccade.export.graph.onnx_graph import layer_of
from saccade.export.precision.effective_precision import element_types
from saccade.export.precision.float_formats import FloatFormat
from saccade.export.precision.regions import TAKES_ANY_TYPE, narrow_inputs

_SMALL_INTEGERS = (TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL)  # every narrow type represents these exactly


def lift_constants(model: onnx.ModelProto) -> None:
    """Turns Constant nodes into initializers, the only form of constants that casting handles."""
    for node in list(model.graph.node):
        if node.op_type != "Constant":
            continue
        value = next((each for each in node.attribute if each.name.startswith("value")), None)
        if value is None or value.name in ("value_string", "value_strings") or value.HasField("sparse_tensor"):
            continue
        model.graph.initializer.append(_constant_tensor(value, node.output[0]))
        model.graph.node.remove(node)


def narrowed(model: onnx.ModelProto, nodes: Collection[str], target: FloatFormat) -> onnx.ModelProto:
    """Returns a copy whose named nodes compute in the narrow type; other nodes, inputs and answers keep theirs."""
    return _Narrowing(model, frozenset(nodes), target).run()


class _Narrowing:
    """One pass over one graph, in graph order."""

    def __init__(self, model: onnx.ModelProto, nodes: frozenset[str], target: FloatFormat) -> None:
        self._model = model
        self._nodes = nodes
        self._target = target
        self._opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        self._types = element_types(model)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        # Answers, and tensors that bodies of loops read by name, must exist in fp32 under their own name.
        self._pinned = {value.name for value in model.graph.output} | _captured(model.graph)
        self._narrow_names = {
            name: f"{name}_{target.precision}" if name in self._pinned else name
            for node in model.graph.node
            if node.name in nodes
            for name in node.output
            if self._types.get(name) == TensorProto.FLOAT
        }
        self._made: dict[tuple[str, int], str] = {}  # names of the copies in the other type, by tensor and type
        self._done: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._used_names: Counter[str] = Counter()

    def run(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if node.name in self._nodes:
                self._narrow(copy)
            else:
                self._keep(copy)
        result = onnx.ModelProto()
        result.CopyFrom(self._model)
        del result.graph.node[:]
        del result.graph.value_info[:]
        result.graph.node.extend(self._done)
        result.graph.initializer.extend(self._constants)
        drop_dead_nodes(result)
        return result

    def _narrow(self, node: onnx.NodeProto) -> None:
        for index in narrow_inputs(node, self._opset):
            if self._types.get(node.input[index]) == TensorProto.FLOAT:
                is_padding = node.op_type == "Pad" and index > 0
                node.input[index] = self._as_narrow(node.input[index], node, is_padding)
        pinned = [name for name in node.output if name in self._narrow_names and name in self._pinned]
        for index, name in enumerate(node.output):
            node.output[index] = self._narrow_names.get(name, name)
        self._done.append(node)
        for name in pinned:
            self._cast(self._narrow_names[name], name, TensorProto.FLOAT, node)

    def _keep(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            if name not in self._narrow_names:
                continue
            is_direct = node.op_type in TAKES_ANY_TYPE  # a second cast behind ours would only cost time
            node.input[index] = self._narrow_names[name] if is_direct else self._as_float(name, node)
        self._done.append(node)

    def _as_narrow(self, name: str, reader: onnx.NodeProto, is_padding: bool) -> str:
        if name in self._narrow_names:
            return self._narrow_names[name]
        key = (name, self._target.element_type)
        if key not in self._made:
            made = f"{name}_{self._target.precision}"
            if name in self._tensors:
                self._constants.append(self._converted(self._tensors[name], made, is_padding))
            else:
                self._cast(self._exact_source(name), made, self._target.element_type, reader)
            self._made[key] = made
        return self._made[key]

    def _as_float(self, name: str, reader: onnx.NodeProto) -> str:
        if name in self._pinned:
            return name
        key = (name, TensorProto.FLOAT)
        if key not in self._made:
            self._made[key] = f"{name}_fp32"
            self._cast(name, self._made[key], TensorProto.FLOAT, reader)
        return self._made[key]

    def _exact_source(self, name: str) -> str:
        """Returns the byte tensor that a float tensor was cast from: it can be cast to the narrow type directly."""
        producer = self._producers.get(name)
        if producer is not None and producer.op_type == "Cast":
            source = str(producer.input[0])
            if self._types.get(source) in _SMALL_INTEGERS:
                return source
        return name

    def _cast(self, source: str, made: str, element_type: int, neighbour: onnx.NodeProto) -> None:
        name = "/".join(part for part in (layer_of(neighbour.name), "Cast_precision") if part)
        self._used_names[name] += 1
        unique = f"{name}_{self._used_names[name]}"
        self._done.append(helper.make_node("Cast", [source], [made], name=unique, to=element_type))

    def _converted(self, tensor: onnx.TensorProto, name: str, is_padding: bool) -> onnx.TensorProto:
        values = numpy_helper.to_array(tensor)
        rounded = self._target.rounded(values)
        if is_padding and values > 0 and rounded == 0:
            # A tiny positive number tells ONNX Runtime not to merge this Pad into MaxPool's own padding.
            rounded = np.full_like(rounded, self._target.smallest)
        return numpy_helper.from_array(rounded, name)


def _captured(graph: onnx.GraphProto, is_body: bool = False) -> set[str]:
    """Returns the names that bodies of loops and branches read, including tensors of their own, which does no harm."""
    names = {name for node in graph.node for name in node.input} if is_body else set()
    for node in graph.node:
        for each in node.attribute:
            if each.HasField("g"):
                names |= _captured(each.g, is_body=True) | {output.name for output in each.g.output}
    return names


def _constant_tensor(value: onnx.AttributeProto, name: str) -> onnx.TensorProto:
    if value.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value.t)
        tensor.name = name
        return tensor
    kind = np.int64 if value.name.startswith("value_int") else np.float32
    return numpy_helper.from_array(np.array(helper.get_attribute_value(value), kind), name)
