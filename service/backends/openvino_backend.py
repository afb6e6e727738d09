"""Runs float and int8 files with OpenVINO on the processor, in exactly the precision that the variant's name says.

OpenVINO takes bfloat16 by itself where the processor has it; here only the variant named so does. Every allowed batch
size is compiled for itself, because dynamic shapes were slower on small networks (`tests/load/README.md`). OpenVINO has
no counterpart of `allow_spinning`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from saccade.service.backends.base import LoadRequest, Outputs, UInt8Array
from saccade.service.errors import BackendError, RuntimeMissing
from saccade.service.repository.verify import verified_bytes
from saccade.service.repository.without_extras import without_extras

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}  # by the variant's precision: of what is not quantized
_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}  # OpenVINO's names for ours
_PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention"})
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})  # of /proc/cpuinfo; other processors with bfloat16 were not tried
_LEAST_SHARE = 0.5  # of products in the precision asked for; the gate has weighed them, this only notices a fallback
# How lines of a message begin that say where it was raised, not why.
_PLACES = ("Exception from", "Check '", "While validating", "FrontEnd API failed", "Loading input", "To facilitate")
_LOCATION = b"location"  # the key of every tensor that lies in another file: without it a graph names none
_TELEMETRY = "openvino_telemetry"
_NO_START = "OpenVINO does not start"
_IMPORT_TIMEOUT_S = 60.0
_NOT_INSTALLED = "OpenVINO is not installed: pip install 'saccade-serving[openvino]'"


@functools.cache
def why_absent(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Says why OpenVINO's variants of this precision cannot run here, with what to install; empty where they can.

    It asks the kernel for the processor's features, and imports the runtime in another process, once, so that a
    supervisor can call it.
    """
    if importlib.util.find_spec("openvino") is None:
        return _NOT_INSTALLED
    if precision == "bf16" and not _may_have_bf16(cpuinfo):
        return "OpenVINO's bfloat16 needs avx512_bf16 or amx_bf16, which this processor lacks"
    return _import_problem()


def _may_have_bf16(cpuinfo: Path) -> bool:
    try:
        lines = cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return True  # loading asks OpenVINO itself
    return bool({flag for line in lines if line.startswith("flags") for flag in line.split()} & _BF16_FLAGS)


@functools.cache
def _import_problem() -> str:
    """Why the installed OpenVINO cannot be imported; empty where it can. It takes half a second."""
    program = f"from {__name__} import import_openvino; import_openvino()"
    command = [sys.executable, "-P", "-c", program]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{_NO_START}: {error}"
    if ran.returncode == 0:
        return ""
    last = (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[-1]
    return f"{_NO_START}: {last.rpartition(f'{_NO_START}: ')[2]}"


def import_openvino() -> ModuleType:
    """Imports the runtime, late because it is heavy. Raises RuntimeMissing.

    OpenVINO's own import would write an id below the home directory and start a sender of statistics; without that
    package it takes an empty stand-in, so the import is told that there is none.
    """
    if importlib.util.find_spec("openvino") is None:
        raise RuntimeMissing(_NOT_INSTALLED)
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say that there is no such module
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise RuntimeMissing(f"{_NO_START}: {error}") from error
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]


class OpenVinoBackend:
    """One compiled model per batch size: of the allowed ones at once, of others where none are named."""

    def __init__(self, request: LoadRequest) -> None:
        """Raises BackendError or RepositoryError."""
        openvino = import_openvino()
        self._provider = f"openvino {openvino.__version__.partition('-')[0]}"
        self._request = request
        self._core = openvino.Core()
        ensure_capable(self._core, request)
        self._model = _read(self._core, request)
        _ensure_signature(self._model, request)
        self._runs: dict[int, Any] = {}  # infer requests by batch size
        for size in request.allowed_batch_sizes or (1,):
            self._compile(size)

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def layer_precisions(self) -> Mapping[str, str]:
        """The precision in which each product is computed, by the names of the file's nodes that became it."""
        compiled = next(iter(self._runs.values())).get_compiled_model()
        return {name: precision for names, precision in _products(compiled) for name in names}

    def infer(self, images: UInt8Array) -> Outputs:
        """Runs a batch. The output arrays are new: the caller may keep them while the next batch runs."""
        wanted, sizes = self._request.input, self._request.allowed_batch_sizes
        # OpenVINO reads a smaller image without complaint.
        if (
            images.shape[1:] != wanted.shape
            or str(images.dtype) != wanted.dtype
            or (sizes and len(images) not in sizes)
        ):
            raise BackendError(
                f"openvino got {images.dtype}{list(images.shape)}, loaded were {wanted.dtype}{list(wanted.shape)} "
                f"in batches of {', '.join(map(str, sizes)) or 'any size'}"
            )
        run = self._runs.get(len(images)) or self._compile(len(images))
        try:
            found = run.infer({wanted.name: images}, share_inputs=True)
        except Exception as error:  # OpenVINO raises RuntimeError and its own kinds
            raise BackendError(f"openvino failed: {told(error)}") from error
        return [found[output.name] for output in self._request.outputs]

    def close(self) -> None:
        self._runs.clear()
        del self._model, self._core

    def _compile(self, size: int) -> Any:
        compiled = _compiled(self._core, self._model, self._request, size)
        _ensure_as_asked(compiled, self._request)
        self._runs[size] = compiled.create_infer_request()
        return self._runs[size]


def ensure_capable(core: Any, request: LoadRequest) -> None:
    """Raises BackendError where this device or precision is not OpenVINO's here."""
    if request.device != "cpu":
        raise BackendError(f"openvino runs on processors here, not on {request.device!r}")
    if request.precision not in _HINTS:
        raise BackendError(f"openvino has no {request.precision} on processors; it runs {', '.join(_HINTS)}")
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if request.precision == "bf16" and "BF16" not in capabilities:
        raise BackendError(
            f"openvino has no bfloat16 on this processor (it has {', '.join(capabilities)}): serve another variant"
        )


def _read(core: Any, request: LoadRequest) -> Any:
    """The model from the very bytes whose digest was checked; a path might be another file by now."""
    # A compiled model computes all outputs that it has.
    content = without_extras(verified_bytes(request.file, request.sha256), request.extras)
    weights = [(path.name, verified_bytes(path, sha256)) for path, sha256 in request.external_data]
    try:
        if _LOCATION not in content:
            return core.read_model(io.BytesIO(content))
        # OpenVINO looks for weights beside the graph, and in the working directory where the graph has no path. Nobody
        # else writes into this folder, which is gone after the read.
        with tempfile.TemporaryDirectory(prefix="saccade-openvino-", dir=_scratch()) as folder:
            for name, each in ((request.file.name, content), *weights):
                (Path(folder) / name).write_bytes(each)
            return core.read_model(Path(folder) / request.file.name, config={"ENABLE_MMAP": False})
    except Exception as error:  # as in `infer`; a full disk as well
        raise BackendError(f"openvino cannot load {request.file.name}: {told(error)}") from error


def _scratch() -> str:
    """A folder for files; containers may have none but shared memory."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "/dev/shm"


def config_for(precision: str, threads: int) -> dict[str, str | int | bool]:
    """OpenVINO's properties for a variant of this precision; without a directory named, it keeps no cache."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "EXECUTION_MODE_HINT": "PERFORMANCE" if precision == "bf16" else "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_HYPER_THREADING": True,  # or else it takes fewer threads than it is told
        "ENABLE_CPU_PINNING": False,  # the workers of one machine would pin their threads to the same cores
    }


def _compiled(core: Any, model: Any, request: LoadRequest, size: int) -> Any:
    try:
        shaped = model.clone()  # shares the weights
        shaped.reshape({request.input.name: [size, *request.input.shape]})
        return core.compile_model(shaped, "CPU", config_for(request.precision, request.threads))
    except Exception as error:  # as in `infer`
        raise BackendError(f"openvino cannot load {request.file.name}: {told(error)}") from error


def _ensure_signature(model: Any, request: LoadRequest) -> None:
    """Raises BackendError unless the file has the tensors of its manifest."""
    found = [
        {name: _dtype(each) for each in side for name in each.get_names()} for side in (model.inputs, model.outputs)
    ]
    wanted = [{each.name: each.dtype for each in side} for side in ((request.input,), request.outputs)]
    if found[0] != wanted[0] or not wanted[1].items() <= found[1].items():
        raise BackendError(
            f"{request.file.name} has {found[0]} -> {found[1]}, the manifest declares {wanted[0]} -> {wanted[1]}"
        )


def _dtype(port: Any) -> str:
    return str(port.get_element_type().to_dtype())


def _ensure_as_asked(compiled: Any, request: LoadRequest) -> None:
    """Raises BackendError unless the compiled model runs where and in what it was asked to; OpenVINO only hints."""
    devices, hint = compiled.get_property("EXECUTION_DEVICES"), compiled.get_property("INFERENCE_PRECISION_HINT")
    if list(devices) != ["CPU"]:
        raise BackendError(f"asked for CPU, openvino chose {', '.join(devices)}: refusing the silent fallback")
    if hint.get_type_name() != _HINTS[request.precision]:
        raise BackendError(
            f"asked for {_HINTS[request.precision]}, openvino took {hint.get_type_name()}: refusing the silent fallback"
        )
    products = [precision for _, precision in _products(compiled)]
    as_asked = products.count(request.precision)
    is_less = request.precision == "fp32" and as_asked < len(products)
    if is_less or as_asked < _LEAST_SHARE * len(products):
        raise BackendError(
            f"openvino computes {as_asked} of {len(products)} products in {request.precision}, the others in "
            f"{', '.join(sorted({*products} - {request.precision}))}: refusing the silent fallback"
        )


def _products(compiled: Any) -> Iterator[tuple[list[str], str]]:
    """Convolutions and matrix products as they run: the file's nodes that became each, and its precision."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if facts["layerType"].value in _PRODUCTS:
            precision = facts["runtimePrecision"].value
            yield facts["originalLayersNames"].value.split(","), _NAMES.get(precision, precision)


def told(error: Exception) -> str:
    """The line of OpenVINO's message that says what happened; the others name places in its source."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(_PLACES)]
    return (kept or [type(error).__name__])[-1]
