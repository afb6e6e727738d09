"""Answers questions about ONNX graphs and makes small changes to them, without inference and without files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from graphlib import TopologicalSorter

import onnx

from saccade.export.errors import GraphError
from saccade.models.contract.specs import PreprocessSpec, TaskSpec, TensorSpec, input_tensor, output_tensors

MODEL_FILE = "model.onnx"  # file name of the graph in every step that makes one
_BOUNDARY_KEY = "saccade.network_outputs"  # metadata key: where the network ends and the answer head begins
WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
ELEMENT_TYPES = {
    "uint8": onnx.TensorProto.UINT8,
    "float32": onnx.TensorProto.FLOAT,
    "int32": onnx.TensorProto.INT32,
}


def mark_network_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Writes the names of the network's raw outputs into the model's metadata and removes them from its answers."""
    kept = [output for output in model.graph.output if output.name not in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.helper.set_model_props(model, {_BOUNDARY_KEY: ",".join(names)})


def network_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Returns the names of the raw outputs. Raises GraphError for a graph that no export step marked."""
    for prop in model.metadata_props:
        if prop.key == _BOUNDARY_KEY:
            return tuple(prop.value.split(","))
    raise GraphError(f"the graph does not say where its network ends ({_BOUNDARY_KEY}); run onnx_from_torch again")


def network_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the nodes up to the network's raw outputs, in graph order, without those of the answer head."""
    return ancestors(model, network_outputs(model))


def weighted_part(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the network up to and including its last weighted nodes, in graph order, without the decoding behind."""
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    ends = [
        name
        for node in network_nodes(model)
        if node.op_type in WEIGHTED_OPS and any(constants.get(name, 0) >= 2 for name in node.input)
        for name in node.output
    ]
    return ancestors(model, ends)


def ancestors(model: onnx.ModelProto, tensors: Sequence[str]) -> list[onnx.NodeProto]:
    """Returns the nodes that the named tensors are computed from, in graph order."""
    producers = {name: node for node in model.graph.node for name in node.output}
    pending = list(tensors)
    found: set[str] = set()
    while pending:
        node = producers.get(pending.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        pending.extend(node.input)
    return [node for node in model.graph.node if node.name in found]


def ensure_unique_names(model: onnx.ModelProto) -> None:
    """Renames unnamed and doubly named nodes, because sets of nodes are kept by name."""
    counts = Counter(node.name for node in model.graph.node)
    for index, node in enumerate(model.graph.node):
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}_{index}"


def layer_of(node_name: str) -> str:
    """Returns the torch layer that `onnx_from_torch` wrote into a node's name; empty when it wrote none."""
    return node_name.rpartition("/")[0]


def ensure_contract(
    model: onnx.ModelProto, task: TaskSpec, preprocess: PreprocessSpec, extra_outputs: Sequence[str] = ()
) -> None:
    """Raises GraphError unless the tensors are the contract's, all with one leading batch dimension."""
    batch = batch_dimension(model)
    answers = output_tensors(task, preprocess)
    _ensure_tensors("inputs", model.graph.input, (input_tensor(preprocess),), batch)
    _ensure_tensors("outputs", model.graph.output[: len(answers)], answers, batch)
    extras = tuple(output.name for output in model.graph.output[len(answers) :])
    if extras != tuple(extra_outputs):
        raise GraphError(f"the graph answers {extras} behind {[spec.name for spec in answers]}, not {extra_outputs}")


def batch_dimension(model: onnx.ModelProto) -> str | int:
    """Returns the symbol of the batch, or 1 when the network takes one image only."""
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    return 1 if dimension.dim_value == 1 else dimension.dim_param


def rename_batch_dimension(model: onnx.ModelProto, name: str = "batch") -> None:
    """Gives the batch one readable symbol in every input and output; a fixed batch of one stays."""
    is_fixed = batch_dimension(model) == 1
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        if is_fixed:
            dimension.dim_value = 1
        else:
            dimension.dim_param = name


def op_counts(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    return dict(Counter(node.op_type for node in nodes))


def _ensure_tensors(
    kind: str, values: Sequence[onnx.ValueInfoProto], specs: Sequence[TensorSpec], batch: str | int
) -> None:
    found = [_describe(value) for value in values]
    wanted = [(spec.name, ELEMENT_TYPES[spec.dtype], (batch, *spec.shape)) for spec in specs]
    if found != wanted:
        raise GraphError(f"graph {kind} are {found}, the contract asks for {wanted}")


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim)
    return value.name, tensor.elem_type, shape


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts each node behind those that it reads, as ONNX demands; files that ONNX Runtime takes need not be so."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = {
        index: {maker[name] for name in _names_read(node) if name in maker} - {index}
        for index, node in enumerate(graph.node)
    }
    if all(made < index for index, found in reads.items() for made in found):
        return
    nodes = [graph.node[index] for index in TopologicalSorter(reads).static_order()]
    sorted_nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(sorted_nodes)


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Inputs of the node, and what its branches and bodies read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _names_read(each)
