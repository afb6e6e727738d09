"""Reads one finished graph: who makes and reads a tensor, its shape for one image, its type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from saccade.export.graph.graph_rewrites import attribute
from saccade.export.precision.concrete_shapes import concrete_shapes
from saccade.export.precision.effective_precision import element_types

_SMALL = 4096  # elements of constants that are read: axes and indices


class GraphView:
    """All that the search for feature maps asks of a graph; it changes nothing."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.shapes = concrete_shapes(model)
        self.types = element_types(model)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def shape(self, name: str) -> tuple[int, ...]:
        """Without the batch; empty where it is unknown."""
        return self.shapes.get(name, ())[1:]

    def is_float(self, name: str) -> bool:
        return self.types.get(name) == onnx.TensorProto.FLOAT

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored, or made of stored ones alone."""
        while name not in self.constants:
            node = self.producers.get(name)
            if node is None:
                return False
            if node.op_type == "Constant":
                return True
            if node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity"):
                return False
            name = node.input[0]
        return True

    def numbers(self, name: str) -> NDArray[np.int64] | None:
        """The values of a small stored tensor of whole numbers."""
        tensor = self.constants.get(name)
        if tensor is None:
            node = self.producers.get(name)
            tensor = attribute(node, "value", None) if node is not None and node.op_type == "Constant" else None
        if tensor is None or uses_external_data(tensor) or int(np.prod(tensor.dims, dtype=np.int64)) > _SMALL:
            return None
        return np.atleast_1d(numpy_helper.to_array(tensor))

    def axes(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """The axes over which a node reduces, from 0; empty where they are unknown."""
        given = attribute(node, "axes", None)
        if given is None and len(node.input) > 1:
            given = self.numbers(node.input[1])
        rank = len(self.shapes.get(node.input[0], ()))
        return () if given is None else tuple(sorted(int(axis) % rank for axis in given)) if rank else ()

    def ancestors(self, outputs: Sequence[str]) -> list[onnx.NodeProto]:
        """The nodes that tensors are made of, each behind those that it reads."""
        order: dict[int, onnx.NodeProto] = {}
        pending: list[tuple[str, bool]] = [(name, False) for name in outputs]
        entered: set[int] = set()
        while pending:
            name, is_done = pending.pop()
            node = self.producers.get(name)
            if node is None:
                continue
            if is_done:
                order.setdefault(id(node), node)
            elif id(node) not in entered:
                entered.add(id(node))
                pending.append((name, True))
                pending += [(each, False) for each in node.input if each]
        return list(order.values())
