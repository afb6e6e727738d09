"""Puts extra outputs into a graph: each is computed in one branch of a node `If`, whose condition is an optional input.

Without that input the branch is not run, in every runtime, and the answer's nodes are those of the file without it.
The file's metadata describe its extra outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from saccade.export.graph.onnx_graph import ELEMENT_TYPES, batch_dimension
from saccade.models.contract.extras import ExtraOutput
from saccade.service.repository.without_extras import without_extras

_KEY = "saccade.extras"  # metadata key: a JSON list of `ExtraOutput`


class NoExtra(Exception):
    """The file gets no such output; the message says why, and reaches the clients that ask for it."""


@dataclass(frozen=True, slots=True)
class ExtraBranch:
    """How an extra output is computed: nodes that read any tensors of the graph, and constants of their own.

    Names of what the nodes make begin with the kind's, so that they are nobody else's.
    """

    extra: ExtraOutput
    nodes: Sequence[onnx.NodeProto]
    result: str  # tensor that the last nodes make: (n, *extra.output.shape)
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def add_branch(model: onnx.ModelProto, branch: ExtraBranch) -> None:
    """Adds an output behind those that the graph has."""
    extra, graph = branch.extra, model.graph
    spec, found = extra.output, (*extras_in(model), extra)
    kind = ELEMENT_TYPES[spec.dtype]
    shape = [batch_dimension(model), *spec.shape]
    constants = [numpy_helper.from_array(value, name) for name, value in branch.constants.items()]
    then = helper.make_graph(
        branch.nodes, f"{extra.kind}_asked", [], [helper.make_tensor_value_info(branch.result, kind, shape)], constants
    )
    empty = numpy_helper.from_array(np.zeros((0, *spec.shape), spec.dtype), f"{extra.kind}_empty")
    nothing = helper.make_node("Constant", [], [empty.name], value=empty)
    otherwise = helper.make_graph(
        [nothing], f"{extra.kind}_unasked", [], [helper.make_tensor_value_info(empty.name, kind, shape)]
    )
    name = extra.kind.input
    graph.node.append(
        helper.make_node("If", [name], [spec.name], f"{extra.kind}/If", then_branch=then, else_branch=otherwise)
    )
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.array(False), name))  # which makes the input optional
    graph.output.append(helper.make_tensor_value_info(spec.name, kind, shape))
    kept = [prop for prop in model.metadata_props if prop.key != _KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=_KEY, value=orjson.dumps([each.model_dump(mode="json") for each in found]).decode())


def extras_in(model: onnx.ModelProto) -> tuple[ExtraOutput, ...]:
    """The extra outputs of a graph, in the order of its outputs."""
    text = next((prop.value for prop in model.metadata_props if prop.key == _KEY), "[]")
    return tuple(ExtraOutput.model_validate(each) for each in orjson.loads(text))


def drop_extras(model: onnx.ModelProto) -> None:
    """Removes the extra outputs, for runtimes that compute all outputs of a file."""
    extras = extras_in(model)
    if extras:
        model.CopyFrom(onnx.ModelProto.FromString(without_extras(model.SerializeToString(), extras)))
