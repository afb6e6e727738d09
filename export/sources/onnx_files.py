"""Reads, checks and runs users' ONNX files, so that inputs and outputs are known before a file is used."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.graph.onnx_graph import sort_nodes
from saccade.export.graph.quantized_graph import quantized_weights
from saccade.export.graph.sessions import cpu_session, plain_options, quiet_options
from saccade.export.sources.onnx_batch import answers_each_alone, with_dynamic_batch
from saccade.export.sources.onnx_half import is_half, widened
from saccade.export.sources.onnx_words import InputLayout

FLOAT = "tensor(float)"
FLOAT16 = "tensor(float16)"
FLOATS = (FLOAT, FLOAT16)
_LARGEST_FILE = 1 << 31  # bytes that protobuf can read
_LARGEST_REWRITTEN = 1 << 30  # bytes of a file whose batch is worth a copy in memory
LARGEST_SIDE = 8192  # pixels, as `PreprocessSpec` takes them
_OPEN_SIDE = 256  # pixels, where the file leaves a side open
_FLOAT_DATA = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
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
    """The one image input, (batch, channels, height, width) or (batch, height, width, channels), and the outputs."""

    images: OnnxTensor
    outputs: tuple[OnnxTensor, ...]
    layout: InputLayout
    channels: int

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) where the file fixes them."""
        height, width = self.images.shape[2:] if self.layout == "nchw" else self.images.shape[1:3]
        return None if height is None or width is None else (width, height)

    def shape(self, count: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns the shape of `count` images as the file takes them."""
        if self.layout == "nchw":
            return count, self.channels, height, width
        return count, height, width, self.channels


def signature_of(path: Path, layout: InputLayout | None = None, channels: int | None = None) -> OnnxSignature:
    """Layout and channels are the recipe's, where it gives them. Raises SourceError unless the file takes images."""
    session = session_of(path)
    inputs = [_tensor(each) for each in session.get_inputs()]
    listed = "; ".join(str(each) for each in inputs)
    wanted = (
        "source: onnx takes files with one input of images, float (batch, 3, height, width) or "
        "(batch, height, width, 3), or with one channel"
    )
    if len(inputs) != 1:
        raise SourceError(f"{path.name} has {len(inputs)} inputs: {listed}. {wanted}")
    (images,) = inputs
    if images.type not in FLOATS:
        raise SourceError(f"{path.name} takes {listed}. {wanted}; {_other_type(images.type)}")
    found = None if len(images.shape) != 4 else _layout_of(images.shape, layout, channels)
    if found is None:
        said = f"; the recipe says input_layout: {layout}, channels: {channels}" if layout or channels else ""
        raise SourceError(f"{path.name} takes {listed}. {wanted}{said}")
    if images.shape[0] not in (1, None):
        raise SourceError(
            f"{path.name} takes exactly {images.shape[0]} images at once; export it with a dynamic batch, or one image"
        )
    if any(side is not None and side > LARGEST_SIDE for side in images.shape):
        raise SourceError(f"{path.name} takes {listed}; at most {LARGEST_SIDE} pixels a side are served")
    return OnnxSignature(images, tuple(_tensor(each) for each in session.get_outputs()), *found)


def _layout_of(
    shape: tuple[int | None, ...], layout: InputLayout | None, channels: int | None
) -> tuple[InputLayout, int] | None:
    """The layout whose channel dimension can be one; channels first where both can."""
    places: tuple[tuple[InputLayout, int], ...] = (("nchw", 1), ("nhwc", 3))
    allowed = (1, 3) if channels is None else (channels,)
    for name, place in places:
        if layout in (name, None) and shape[place] in allowed:
            return name, int(shape[place] or 0)
    for name, place in places:
        if layout in (name, None) and shape[place] is None:
            return name, channels or 3
    return None


def run(path: Path, images: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Every output for a batch in the file's own layout; one image at a time where the file takes only one.

    Half-precision inputs and outputs are float32 on this side.
    """
    session = session_of(path)
    (entry,) = session.get_inputs()
    given = images.astype(np.float16) if entry.type == FLOAT16 else images
    if entry.shape[0] != 1:
        return [_single(output) for output in session.run(None, {entry.name: given})]
    parts = [session.run(None, {entry.name: given[index : index + 1]}) for index in range(len(given))]
    return [_single(np.concatenate(tensors)) for tensors in zip(*parts, strict=True)]


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """The file opened by ONNX Runtime; kept until another file is. Raises SourceError.

    A fixed batch of one is taken out of it where two pictures prove that nothing else changes.
    """
    return _session(path, _stamp(path))


def served_model(path: Path) -> onnx.ModelProto:
    """The graph that `session_of` runs. Raises SourceError."""
    model = read_model(path)
    return _rewritten(path, _stamp(path), model) or model


def has_one_image(path: Path) -> bool:
    """Whether the file's graph takes exactly one image, and two do not prove that it could take more."""
    return bool(session_of(path).get_inputs()[0].shape[0] == 1)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror}; fix `weights`") from error


def _single(output: NDArray[Any]) -> NDArray[Any]:
    return output.astype(np.float32) if output.dtype == np.float16 else output


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
        if not _resolved(path, file).is_relative_to(root):
            raise SourceError(
                f"{path.name} keeps tensors in {file}, outside its own directory; save it again beside it"
            )
        if not file.is_file():
            raise SourceError(f"{path.name} keeps tensors in {file.name}, which is not beside it; copy it there")
    return files


def _resolved(path: Path, file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:  # Python before 3.13 raises the latter for links in a circle
        raise SourceError(f"{path.name} keeps tensors in {file.name}, a link that leads nowhere") from error


def read_model(path: Path, *, with_data: bool = True) -> onnx.ModelProto:
    """The parsed file. Raises SourceError when it is not ONNX."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise SourceError(f"{path.name} is no ONNX file: one holds at most 2 GiB, and more weights lie beside it")
        model = onnx.load(path, format="protobuf", load_external_data=with_data)
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror or error}; fix `weights`") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        if zipfile.is_zipfile(path):
            raise SourceError(
                f"{path.name} is no ONNX file but an archive, as torch.save writes them: export the network to ONNX"
            ) from error
        raise SourceError(f"{path.name} is not an ONNX file, or a damaged one: {_first_line(error)}") from error
    if not model.graph.node or not model.opset_import:
        raise SourceError(f"{path.name} is not an ONNX file: it holds no graph")
    try:
        sort_nodes(model.graph)
    except CycleError as error:
        raise SourceError(f"{path.name} is damaged: nodes of its graph read each other in a circle") from error
    return model


@lru_cache(maxsize=1)
def _session(path: Path, stamp: int) -> onnxruntime.InferenceSession:
    model = read_model(path, with_data=False)
    external_files(path)
    options = quiet_options() if quantized_weights(model) is None else plain_options()
    try:
        rewritten = _rewritten(path, stamp, model)
        return cpu_session(path if rewritten is None else rewritten.SerializeToString(), options)
    except Exception as error:  # ONNX Runtime's errors share no public class
        unknown = unknown_operators(model)
        if unknown:
            raise SourceError(
                f"{path.name} uses operators that ONNX Runtime does not have: {'; '.join(unknown)}. "
                "Export it with standard operators, or without the nodes that need a plug-in"
            ) from error
        if _is_too_new(model):
            raise SourceError(
                f"{path.name} is written for opset {_opset(model)} and IR version {model.ir_version}, newer than what "
                f"is known here ({onnx.defs.onnx_opset_version()} and {onnx.IR_VERSION}); export it with an older opset"
            ) from error
        raise SourceError(f"ONNX Runtime cannot open {path.name}: {_first_line(error)}") from error


def _is_too_new(model: onnx.ModelProto) -> bool:
    return _opset(model) > onnx.defs.onnx_opset_version() or model.ir_version > onnx.IR_VERSION


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _rewritten(path: Path, stamp: int, model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns the graph with any batch size where that is proven, and in float32; None where it has both already."""
    opens_up = _opens_up(path, stamp)
    is_large = path.stat().st_size > _LARGEST_REWRITTEN or bool(external_files(path))
    is_widened = not is_large and is_half(model)
    if not opens_up and not is_widened:
        return None
    if opens_up:
        model = with_dynamic_batch(model) or model
    return widened(model) if is_widened else model


@lru_cache(maxsize=16)
def _opens_up(path: Path, stamp: int) -> bool:
    """Whether the file has a batch of one that two pictures prove to be needless."""
    model = read_model(path, with_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    entries = [value for value in model.graph.input if value.name not in constants]
    sides = [dim.dim_value for value in entries for dim in value.type.tensor_type.shape.dim]
    if len(entries) != 1 or len(sides) != 4 or sides[0] != 1 or path.stat().st_size > _LARGEST_REWRITTEN:
        return False
    if external_files(path):
        return False
    changed = with_dynamic_batch(model)
    if changed is None:
        return False
    half = entries[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    blocks = np.random.default_rng(0).random((2, *(-(-(side or _OPEN_SIDE) // 8) for side in sides[1:])))
    pair = np.kron(blocks, np.ones((1, 8, 8, 8)))[(slice(None), *(slice(side or _OPEN_SIDE) for side in sides[1:]))]
    pixels = pair.astype(np.float16 if half else np.float32)
    try:
        sessions = cpu_session(changed.SerializeToString()), cpu_session(path)
    except Exception:  # as in `_session`, which names the reason when the file itself cannot be opened
        return False
    together, alone = (lambda images, each=each: each.run(None, {entries[0].name: images}) for each in sessions)
    return answers_each_alone(together, alone, pixels)


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


def parameter_count(graph: onnx.GraphProto) -> int:
    """Counts the numbers of all float tensors that lie in the file; whole numbers are shapes and positions."""
    return sum(prod(tensor.dims) for tensor in _tensors(graph) if tensor.data_type in _FLOAT_DATA)


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
        case "tensor(bfloat16)" | "tensor(double)":
            return "convert the file to float32, or export it again in float32; variants choose the precision later"
        case "tensor(uint8)":
            return "saccade puts pixels and normalisation in front itself: export the network without its own"
        case _:
            return "export the network with float input"


def _first_line(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return text.partition("\n")[0] or type(error).__name__
