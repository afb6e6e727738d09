"""Collects the nodes and constants of one branch, under names that nobody else has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from saccade.export.extras.graph_view import GraphView

_AXES_AS_INPUT = 18  # opset from which reductions take their axes as an input


class BranchNodes:
    """Nodes in their order; every name begins with the kind of the branch."""

    def __init__(self, kind: str, opset: int) -> None:
        self._kind = kind
        self._opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the tensor that it makes."""
        output = f"{self._kind}/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A constant of the branch; one name always has one value."""
        full = f"{self._kind}/{name}"
        assert full not in self.constants or np.array_equal(self.constants[full], value)
        self.constants[full] = value
        return full

    def mean(self, tensor: str, axes: Sequence[int], *, keeps: bool = False) -> str:
        return self._reduced("ReduceMean", tensor, axes, keeps)

    def maximum(self, tensor: str, axes: Sequence[int], *, keeps: bool = False) -> str:
        return self._reduced("ReduceMax", tensor, axes, keeps)

    def squares(self, tensor: str, axes: Sequence[int], *, keeps: bool = False) -> str:
        """The sum of squares, without ReduceSumSquare: ONNX Runtime has no fast kernel of it over channels."""
        return self._reduced("ReduceSum", self.add("Mul", tensor, tensor), axes, keeps)

    def length(self, tensor: str, axes: Sequence[int]) -> str:
        """The Euclidean length over axes that lie together, at which ONNX Runtime's kernel of it is fast."""
        return self._reduced("ReduceL2", tensor, axes, False)

    def _reduced(self, operator: str, tensor: str, axes: Sequence[int], keeps: bool) -> str:
        if self._opset < _AXES_AS_INPUT:
            return self.add(operator, tensor, axes=list(axes), keepdims=int(keeps))
        named = self.constant("axes_" + "_".join(map(str, axes)), np.array(axes, np.int64))
        return self.add(operator, tensor, named, keepdims=int(keeps))

    def float_side(self, view: GraphView, tensor: str) -> str:
        """The tensor in float, read so that it is in nobody's way.

        Runtimes make one int8 operator of a float one between Q and DQ, unless another reads what lies between. So the
        branch reads the int8 tensor beside it, and dequantizes by itself.
        """
        made = view.producers.get(tensor)
        if made is not None and made.op_type == "DequantizeLinear":
            return self._dequantized(made)
        for reader in view.readers[tensor]:
            if reader.op_type == "QuantizeLinear":
                for behind in view.readers[reader.output[0]]:
                    if behind.op_type == "DequantizeLinear":
                        return self._dequantized(behind)
        return tensor

    def _dequantized(self, node: onnx.NodeProto) -> str:
        kept = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        return self.add("DequantizeLinear", *node.input, **kept)
