"""ONNX files of users: read, checked and run. Promises: what a file takes and gives is known before it is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from saccade.export.errors import SourceError

FLOAT = "tensor(float)"
INT64 = "tensor(int64)"
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """An input or output as ONNX Runtime sees it; None in `shape` is a size that the file leaves open."""

    name: str
    type: str  # as in `tensor(float)`
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} {self.type.removeprefix('tensor').strip('()')} ({sizes})"


@dataclass(frozen=True, slots=True)
class OnnxSignature:
    """The one image input (batch, 3, height, width) and the outputs."""

    images: OnnxTensor
    outputs: tuple[OnnxTensor, ...]

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) where the file fixes them."""
        height, width = self.images.shape[2:]
        return None if height is None or width is None else (width, height)


def signature_of(path: Path) -> OnnxSignature:
    """Raises SourceError unless the file takes one float32 tensor (batch, 3, height, width)."""
    session = session_of(path)
    inputs = [_tensor(each) for each in session.get_inputs()]
    listed = "; ".join(str(each) for each in inputs)
    wanted = "source: onnx takes files with one input of normalised images, float (batch, 3, height, width)"
    if len(inputs) != 1:
        raise SourceError(f"{path.name} has {len(inputs)} inputs: {listed}. {wanted}")
    (images,) = inputs
    if images.type != FLOAT:
        raise SourceError(f"{path.name} takes {listed}. {wanted}; {_other_type(images.type)}")
    if len(images.shape) != 4 or images.shape[1] not in (3, None):
        hint = (
            "; channels come last here: export it with NCHW input"
            if len(images.shape) == 4 and images.shape[3] == 3
            else ""
        )
        raise SourceError(f"{path.name} takes {listed}. {wanted}{hint}")
    if images.shape[0] not in (1, None):
        raise SourceError(
            f"{path.name} takes exactly {images.shape[0]} images at once; export it with a dynamic batch, or one image"
        )
    return OnnxSignature(images, tuple(_tensor(each) for each in session.get_outputs()))


def run(path: Path, images: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Every output for a batch (n, 3, height, width); one image at a time where the file takes only one."""
    session = session_of(path)
    (entry,) = session.get_inputs()
    if entry.shape[0] != 1:
        return list(session.run(None, {entry.name: images}))
    parts = [session.run(None, {entry.name: images[index : index + 1]}) for index in range(len(images))]
    return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """The file opened by ONNX Runtime; kept until another file is. Raises SourceError."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror}; fix `weights`") from error
    return _session(path, stamp)


def close_sessions() -> None:
    """Gives back the memory of the last file."""
    _session.cache_clear()


def external_files(path: Path) -> list[Path]:
    """Files beside an ONNX file that hold its tensors. Raises SourceError when one is missing or lies elsewhere."""
    found = set()
    for tensor in _tensors(read_model(path, with_data=False).graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                found.add(entry.value)
    root = path.parent.resolve()
    files = [path.parent / name for name in sorted(found)]
    for file in files:
        if not file.resolve().is_relative_to(root):
            raise SourceError(
                f"{path.name} keeps tensors in {file}, outside its own directory; save it again beside it"
            )
        if not file.is_file():
            raise SourceError(f"{path.name} keeps tensors in {file.name}, which is not beside it; copy it there")
    return files


def read_model(path: Path, *, with_data: bool = True) -> onnx.ModelProto:
    """The parsed file. Raises SourceError when it is not ONNX."""
    try:
        model = onnx.load(path, format="protobuf", load_external_data=with_data)
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror or error}; fix `weights`") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise SourceError(f"{path.name} is not an ONNX file, or a damaged one: {_first_line(error)}") from error
    if not model.graph.node or not model.opset_import:
        raise SourceError(f"{path.name} is not an ONNX file: it holds no graph")
    return model


@lru_cache(maxsize=1)
def _session(path: Path, stamp: int) -> onnxruntime.InferenceSession:
    model = read_model(path, with_data=False)
    external_files(path)
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public class
        unknown = unknown_operators(model)
        if unknown:
            raise SourceError(
                f"{path.name} uses operators that ONNX Runtime does not have: {'; '.join(unknown)}. "
                "Export it with standard operators, or without the nodes that need a plug-in"
            ) from error
        raise SourceError(f"ONNX Runtime cannot open {path.name}: {_first_line(error)}") from error


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Operators of no standard domain and no function of the model, each once, with the node that has it first."""
    functions = {(function.domain, function.name) for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    found: dict[tuple[str, str], str] = {}
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in _all_nodes(nodes):
        key = (node.domain, node.op_type)
        if key in functions or key in found:
            continue
        if node.domain not in _OWN_DOMAINS or not _is_standard(node, versions):
            domain = f"domain {node.domain!r}" if node.domain else f"opset {versions.get('', 0)}"
            found[key] = f"{node.op_type} ({domain}) in node {node.name or node.output[0]!r}"
    return list(found.values())


def _is_standard(node: onnx.NodeProto, versions: dict[str, int]) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return bool(onnx.defs.has(node.op_type, versions.get(domain, versions.get("ai.onnx", 1)), domain))


def _all_nodes(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes with those of their branches and loop bodies."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(list(graph.node))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _tensor(value: Any) -> OnnxTensor:
    return OnnxTensor(value.name, value.type, tuple(size if isinstance(size, int) else None for size in value.shape))


def _other_type(found: str) -> str:
    match found:
        case "tensor(float16)" | "tensor(bfloat16)" | "tensor(double)":
            return "convert the file to float32, or export it again in float32; variants choose the precision later"
        case "tensor(uint8)":
            return "saccade puts pixels and normalisation in front itself: export the network without its own"
        case _:
            return "export the network with float input"


def _first_line(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return text.partition("\n")[0] or type(error).__name__
