"""Builds TensorRT plans. Promises: strongly typed, from the float graph, and every refusal names its node and layer.

`tensorrt` builds for the GPU it finds; `tensorrt_rtx` builds for other GPUs and needs none. Their Python API is the
same where this file uses it.
"""

from __future__ import annotations

import importlib
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from export.errors import GraphError
from export.onnx_graph import layer_of
from export.rewrites.byte_input import cast_bytes_first
from export.rewrites.suppression_for_tensorrt import use_rounds_for_suppression

DEFAULT_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")  # A100, consumer Ampere, Ada, Blackwell
_RUNTIMES = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class ParserError:
    """One node that TensorRT refuses."""

    operator: str
    node: str
    layer: str  # of the torch network; empty when the graph does not come from one
    reason: str


@dataclass(frozen=True, slots=True)
class NetworkLayer:
    """One layer of the strongly typed network, before it is built: its types are those that the plan computes in."""

    node: str  # of the graph; several layers may come from one node, and some from none
    kind: str  # TensorRT's layer type in lower case, as `convolution`
    inputs: tuple[str, ...]  # TensorRT's element types in lower case, as `half`
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What came of a build. `plan` is None exactly when `errors` says why."""

    plan: bytes | None
    seconds: float
    layers: int  # of the network as parsed
    dtypes: Mapping[str, int]  # how many layers give each type; strongly typed, so the plan computes in these
    errors: tuple[ParserError, ...]
    warnings: tuple[str, ...]

    @property
    def plan_bytes(self) -> int:
        return 0 if self.plan is None else len(self.plan)


def find_tensorrt(name: str | None = None) -> ModuleType | None:
    """The named runtime, or the first one installed; None where there is none."""
    for candidate in _RUNTIMES if name is None else (name,):
        try:
            return importlib.import_module(candidate)
        except ImportError:  # also raised by one whose libraries are missing
            continue
    return None


def parser_errors(model: bytes | Path, tensorrt: ModuleType) -> tuple[ParserError, ...]:
    """The nodes of a graph that TensorRT cannot take, without building."""
    session = _Parsed(model, tensorrt)
    return session.errors


def network_layers(model: bytes | Path, tensorrt: ModuleType) -> tuple[NetworkLayer, ...]:
    """The parsed network, layer by layer. Raises GraphError naming the first node that TensorRT refuses."""
    parsed = _Parsed(model, tensorrt)
    if parsed.errors:
        error = parsed.errors[0]
        raise GraphError(f"{tensorrt.__name__} refuses {error.operator} {error.node!r}: {error.reason}")
    return tuple(_network_layer(parsed.network.get_layer(index)) for index in range(parsed.network.num_layers))


def build_plan(
    model: bytes | Path,
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES,
    profile_batches: tuple[int, int, int] = (1, 8, 16),
    runtime: str | None = None,
    *,
    is_sparse: bool = False,
    is_detailed: bool = False,
) -> PlanReport:
    """A plan for batches from the first to the last of `profile_batches`, tuned for the middle one.

    `is_sparse` lets it choose kernels for 2:4 weights, `is_detailed` lets its inspector name types and kernels.
    Raises GraphError when no TensorRT is installed or a compute capability is unknown to it.
    """
    tensorrt = find_tensorrt(runtime)
    if tensorrt is None:
        raise GraphError("no TensorRT is installed: install the `rtx` extra, or `tensorrt` on a machine with a GPU")
    start = time.perf_counter()
    parsed = _Parsed(model, tensorrt)
    if parsed.errors:
        return PlanReport(None, time.perf_counter() - start, 0, {}, parsed.errors, parsed.log.warnings())
    config = parsed.builder.create_builder_config()
    _choose_capabilities(config, tensorrt, capabilities)
    config.add_optimization_profile(_profile(parsed, profile_batches))
    if is_sparse:
        config.set_flag(tensorrt.BuilderFlag.SPARSE_WEIGHTS)
    if is_detailed:
        config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    seconds = time.perf_counter() - start
    errors = () if plan is not None else (_build_error(parsed),)
    content = None if plan is None else bytes(plan)
    network = parsed.network
    return PlanReport(content, seconds, network.num_layers, _dtypes(network), errors, parsed.log.warnings())


class _Parsed:
    """A network definition parsed from a graph, with everything that must outlive it."""

    def __init__(self, model: bytes | Path, tensorrt: ModuleType) -> None:
        proto, origin = _friendly(model)
        self._layers = {node.name: layer_of(node.name) for node in proto.graph.node}
        self.log = _log(tensorrt)
        self.builder = tensorrt.Builder(self.log)
        self.network = self.builder.create_network(_strongly_typed(tensorrt))
        self._parser = tensorrt.OnnxParser(self.network, self.log)
        self._parser.parse(proto.SerializeToString(), origin)  # the path says where external weights lie
        self.errors = tuple(self._error(self._parser.get_error(index)) for index in range(self._parser.num_errors))

    def _error(self, error: Any) -> ParserError:
        name = error.node_name()
        # It adds `false`, and a note that there is no driver, to whatever it says.
        lines = [line for line in str(error.desc()).splitlines() if line not in ("", "false") and "Cuda" not in line]
        reason = lines[-1] if lines else "TensorRT has no such operator"
        return ParserError(error.node_operator(), name, self._layers.get(name, ""), reason)


def _friendly(model: bytes | Path) -> tuple[onnx.ModelProto, str]:
    """The graph in operators that TensorRT has, and the path that its external weights are relative to."""
    if isinstance(model, bytes):
        proto, origin = onnx.load_model_from_string(model), ""
    else:
        proto, origin = onnx.load(model, load_external_data=False), str(model)
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.UINT8 for value in proto.graph.input):
        cast_bytes_first(proto, proto.graph.input[0].name)
    use_rounds_for_suppression(proto)
    return proto, origin


def _strongly_typed(tensorrt: ModuleType) -> int:
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind since version 11
    return 0 if flag is None else 1 << int(flag)


def _choose_capabilities(config: Any, tensorrt: ModuleType, capabilities: tuple[str, ...]) -> None:
    if not hasattr(config, "num_compute_capabilities"):
        return  # this runtime builds for the GPU at hand
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        capability = getattr(tensorrt.ComputeCapability, name, None)
        if capability is None:
            known = ", ".join(sorted(tensorrt.ComputeCapability.__members__))
            raise GraphError(f"{tensorrt.__name__} does not build for {name!r}; it knows {known}")
        config.set_compute_capability(capability, index)


def _profile(parsed: _Parsed, batches: tuple[int, int, int]) -> Any:
    profile = parsed.builder.create_optimization_profile()
    for index in range(parsed.network.num_inputs):
        tensor = parsed.network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        fixed = int(tensor.shape[0])
        sizes = batches if fixed < 0 else (fixed, fixed, fixed)
        profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
    return profile


def _dtypes(network: Any) -> dict[str, int]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    kinds = (layer.get_output(0).dtype.name.lower() for layer in layers if layer.num_outputs)
    return dict(Counter(kinds))


def _network_layer(layer: Any) -> NetworkLayer:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    origin = _ORIGIN.search(str(layer.metadata or ""))
    return NetworkLayer(
        node=origin.group(1) if origin else str(layer.name),
        kind=layer.type.name.lower(),
        inputs=tuple(tensor.dtype.name.lower() for tensor in inputs if tensor is not None),
        outputs=tuple(tensor.dtype.name.lower() for tensor in outputs),
    )


_ORIGIN = re.compile(r"\[ONNX Layer: (.*?)\]")


def _build_error(parsed: _Parsed) -> ParserError:
    texts = parsed.log.errors()
    return ParserError("", "", "", texts[-1] if texts else "the builder returned no plan and no message")


def _log(tensorrt: ModuleType) -> Any:
    """A logger that keeps what TensorRT would print."""

    class Log(tensorrt.ILogger):  # type: ignore[misc, name-defined]  # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self._lines: list[tuple[Any, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self._lines.append((severity, text))

        def warnings(self) -> tuple[str, ...]:
            return tuple(text for severity, text in self._lines if severity == tensorrt.ILogger.WARNING)

        def errors(self) -> tuple[str, ...]:
            worst = (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR)
            return tuple(text for severity, text in self._lines if severity in worst)

    return Log()
