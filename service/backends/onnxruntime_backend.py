"""Runs ONNX files with ONNX Runtime on the CPU. Loading fails where ONNX Runtime does not use the requested provider.

`onnxruntime_cuda.py` opens its sessions with the same function.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import ALL_KINDS, ExtraOutput, asked_for
from saccade.service.backends.base import LoadRequest, Outputs, UInt8Array
from saccade.service.errors import BackendError, RuntimeMissing
from saccade.service.repository.verify import verified_bytes
from saccade.service.repository.without_extras import without_extras

if TYPE_CHECKING:
    import onnxruntime

GPU_PROVIDER = "CUDAExecutionProvider"
_FATAL = 4  # a log severity of ONNX Runtime
_ASKED = np.array(True)


def ensure_onnxruntime_installed() -> None:
    """Raises RuntimeMissing with what to install; imports nothing."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise RuntimeMissing(
            "ONNX Runtime is not installed: pip install 'saccade-serving[cpu]', or on GPUs 'saccade-serving[gpu]'"
        )


def import_onnxruntime() -> ModuleType:
    """Imports the runtime, late because it is heavy and API processes must never hold it. Raises RuntimeMissing.

    Side effect: turns its telemetry off, which otherwise writes a device id below the home directory.
    """
    ensure_onnxruntime_installed()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it once, on import
    return importlib.import_module("onnxruntime")


def version_for_gpus() -> str:
    """The installed ONNX Runtime's version; empty where there is none, or it has no provider for GPUs."""
    try:
        runtime = import_onnxruntime()
    except RuntimeMissing:
        return ""
    return str(runtime.__version__) if GPU_PROVIDER in runtime.get_available_providers() else ""


def load_cuda_libraries() -> str:
    """Loads CUDA's libraries; returns what could not be loaded in the runtime's words, empty when all could.

    CUDA and cuDNN come from their wheels, so that ONNX Runtime's CUDA provider finds them without a library path;
    where there are no such wheels, the system's libraries are taken.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # the call only prints its failures
        import_onnxruntime().preload_dlls(directory="")
    return " ".join(printed.getvalue().split())


def refuse_tf32() -> None:
    """Makes NVIDIA's libraries, if they are loaded later, refuse TensorFloat-32 in this process.

    Without this, ONNX Runtime may use TensorFloat-32 in an fp32 convolution.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def silence_default_logger() -> None:
    """Makes ONNX Runtime's default logger write fatal messages only.

    The logger writes thousands of lines about plans that cuDNN does not have, before ONNX Runtime takes another plan.
    Real failures are raised as well, except the reason why a provider cannot be loaded: so call this after a session
    was opened.
    """
    import_onnxruntime().set_default_logger_severity(_FATAL)


class OnnxRuntimeBackend:
    """One ONNX Runtime session on the CPU."""

    def __init__(self, request: LoadRequest) -> None:
        self._provider = "CPUExecutionProvider"
        self._session = open_session(request, self._provider, {}, {})
        self._input = request.input.name
        self._outputs = [output.name for output in request.outputs]
        # By mask; putting them together would take a third of what a small network's score of trust costs.
        self._asking = {mask: self._asking_for(request.extras, mask) for mask in range(ALL_KINDS + 1)}
        ensure_signature(self._session, request)

    @property
    def provider(self) -> str:
        return self._provider

    def infer(self, images: UInt8Array) -> Outputs:
        """Runs a batch. The output arrays are new: the caller may keep them while the next batch runs."""
        return self._run(self._outputs, {self._input: images})

    def infer_asked(self, images: UInt8Array, asked: int) -> Outputs:
        """Runs a batch with the extra outputs of a mask behind the answer."""
        names, inputs = self._asking[asked]
        return self._run(names, {self._input: images, **inputs})

    def _asking_for(self, extras: tuple[ExtraOutput, ...], mask: int) -> tuple[list[str], dict[str, NDArray[Any]]]:
        """The names of all outputs, and the inputs that ask for those of the mask."""
        found = asked_for(extras, mask)
        names = [*self._outputs, *(extra.output.name for extra in found)]
        return names, {extra.kind.input: _ASKED for extra in found}

    def _run(self, names: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        try:
            outputs: Outputs = self._session.run(names, inputs)
        except Exception as error:  # ORT's exceptions have no public base class
            raise BackendError(f"onnxruntime failed: {first_line(error)}") from error
        return outputs

    def close(self) -> None:
        del self._session


def ensure_provider(device: str, provider: str) -> None:
    """Raises BackendError where the installed ONNX Runtime does not have the provider."""
    available = import_onnxruntime().get_available_providers()
    if provider not in available:
        raise BackendError(
            f"device {device!r} needs {provider}; this onnxruntime has {', '.join(available)}: "
            "install the matching extra (cpu or gpu)"
        )


def open_session(
    request: LoadRequest,
    provider: str,
    provider_options: Mapping[str, str],
    entries: Mapping[str, str],
    *,
    drops_extras: bool = False,
) -> onnxruntime.InferenceSession:
    """Opens a session on `provider` alone; `entries` are session options. Raises BackendError or RepositoryError."""
    ensure_provider(request.device, provider)
    onnxruntime = import_onnxruntime()
    # The session gets the very bytes whose digest was checked; a path might be another file by now.
    model_bytes = verified_bytes(request.file, request.sha256)
    if drops_extras:
        model_bytes = without_extras(model_bytes, request.extras)
    weights = [(path.name, verified_bytes(path, sha256)) for path, sha256 in request.external_data]
    options = _session_options(request, weights)
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    try:
        session = onnxruntime.InferenceSession(model_bytes, options, providers=[(provider, dict(provider_options))])
    except Exception as error:  # ORT's exceptions have no public base class
        raise BackendError(f"onnxruntime cannot load {request.file.name}: {first_line(error)}") from error
    # ORT falls back to the CPU without raising, so ask the session what it got.
    got = session.get_providers()[0]
    if got != provider:
        raise BackendError(f"asked for {provider}, onnxruntime chose {got}: refusing the silent fallback")
    return session


def _session_options(request: LoadRequest, weights: list[tuple[str, bytes]]) -> onnxruntime.SessionOptions:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if request.merges_dequantized else levels.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(request.allow_spinning)))
    options.log_severity_level = 3
    if weights:
        names, contents = [name for name, _ in weights], [content for _, content in weights]
        options.add_external_initializers_from_files_in_memory(names, contents, [len(each) for each in contents])
    return options


def ensure_signature(session: onnxruntime.InferenceSession, request: LoadRequest) -> None:
    """Raises BackendError unless the file has the tensors of its manifest: a swapped file fails at load, not per
    request.
    """
    found_inputs = {tensor.name: tensor.type for tensor in session.get_inputs()}
    found_outputs = {tensor.name: tensor.type for tensor in session.get_outputs()}
    wanted_inputs = {request.input.name: _ort_type(request.input.dtype)}
    wanted = (*request.outputs, *(extra.output for extra in request.extras))
    wanted_outputs = {output.name: _ort_type(output.dtype) for output in wanted}
    if found_inputs != wanted_inputs or not wanted_outputs.items() <= found_outputs.items():
        raise BackendError(
            f"{request.file.name} has {found_inputs} -> {found_outputs}, "
            f"the manifest declares {wanted_inputs} -> {wanted_outputs}"
        )


def _ort_type(dtype: str) -> str:
    return f"tensor({'float' if dtype == 'float32' else dtype})"


def first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
